package assign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/leatlog/leat/topology/plan"
)

// version leads every message; others are refused.
const version = 3

// ErrMessage says that bytes are none of this package's messages.
var ErrMessage = errors.New("assign: message is not valid")

// AppendMember appends what a member tells when it joins; its ID is not part.
func AppendMember(dst []byte, m Member) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(max(1, m.Capacity)))
	dst = appendTasks(appendTasks(dst, m.Owned), m.Standbys)
	dst = binary.AppendUvarint(dst, uint64(len(m.Restored)))
	for _, r := range m.Restored {
		dst = appendTask(dst, r.Task)
		dst = binary.AppendUvarint(dst, r.Offset)
	}
	return appendAddress(dst, m.Address)
}

// DecodeMember reads what AppendMember wrote.
func DecodeMember(b []byte) (Member, error) {
	d := decoder{b: b}
	d.version()
	var m Member
	m.Capacity = int(d.uvarint(math.MaxInt16))
	m.Owned = d.tasks()
	m.Standbys = d.tasks()
	n := d.count()
	for range n {
		t := d.task()
		m.Restored = append(m.Restored, Restored{Task: t, Offset: d.uvarint(math.MaxUint64)})
	}
	m.Address = d.address()
	return m, d.done()
}

// Told is what the leader tells a member.
type Told struct {
	Tasks    []plan.TaskID
	Standbys []Standby
	// Owners say where the tasks of all members can be queried.
	Owners []Owner
}

// AppendTold appends what the leader tells a member.
func AppendTold(dst []byte, told Told) []byte {
	dst = appendTasks(append(dst, version), told.Tasks)
	dst = binary.AppendUvarint(dst, uint64(len(told.Standbys)))
	for _, s := range told.Standbys {
		warmUp := uint64(0)
		if s.WarmUp {
			warmUp = 1
		}
		dst = binary.AppendUvarint(appendTask(dst, s.Task), warmUp)
	}
	dst = binary.AppendUvarint(dst, uint64(len(told.Owners)))
	for _, o := range told.Owners {
		dst = appendTasks(appendTasks(appendAddress(dst, o.Address), o.Tasks), o.Standbys)
	}
	return dst
}

// DecodeTold reads what AppendTold wrote; no bytes are no tasks.
func DecodeTold(b []byte) (Told, error) {
	var told Told
	if len(b) == 0 {
		return told, nil
	}
	d := decoder{b: b}
	d.version()
	told.Tasks = d.tasks()
	for range d.count() {
		s := Standby{Task: d.task()}
		s.WarmUp = d.uvarint(1) == 1
		told.Standbys = append(told.Standbys, s)
	}
	for range d.count() {
		o := Owner{Address: d.address()}
		o.Tasks = d.tasks()
		o.Standbys = d.tasks()
		told.Owners = append(told.Owners, o)
	}
	return told, d.done()
}

// Owners lists where the tasks that were given out can be queried, and their copies.
func Owners(shares []Share, members []Member) []Owner {
	addresses := make(map[string]string, len(members))
	for _, m := range members {
		addresses[m.ID] = m.Address
	}
	var out []Owner
	for _, a := range shares {
		o := Owner{Address: addresses[a.Member], Tasks: a.Tasks}
		for _, s := range a.Standbys {
			o.Standbys = append(o.Standbys, s.Task)
		}
		if o.Address != "" && len(o.Tasks)+len(o.Standbys) > 0 {
			out = append(out, o)
		}
	}
	return out
}

func appendAddress(dst []byte, address string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(address)))
	return append(dst, address...)
}

func appendTasks(dst []byte, tasks []plan.TaskID) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tasks)))
	for _, t := range tasks {
		dst = appendTask(dst, t)
	}
	return dst
}

func appendTask(dst []byte, t plan.TaskID) []byte {
	dst = binary.AppendUvarint(dst, uint64(t.SubTopology))
	return binary.AppendUvarint(dst, uint64(t.Partition))
}

// decoder reads a message; after the first error every read gives zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, arguments ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMessage, fmt.Sprintf(format, arguments...))
	}
	d.b = nil
}

func (d *decoder) version() {
	if len(d.b) == 0 || d.b[0] != version {
		d.fail("version is not %d: all members of an app must run the same release", version)
		return
	}
	d.b = d.b[1:]
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.fail("%d bytes from its end there is no number up to %d", len(d.b), limit)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of elements, each of which takes two bytes or more.
func (d *decoder) count() int { return int(d.uvarint(uint64(len(d.b) / 2))) }

func (d *decoder) task() plan.TaskID {
	return plan.TaskID{SubTopology: int(d.uvarint(math.MaxInt32)), Partition: int32(d.uvarint(math.MaxInt32))}
}

func (d *decoder) address() string {
	n := d.uvarint(min(MaxAddress, uint64(len(d.b))))
	if n > uint64(len(d.b)) {
		d.fail("an address of %d bytes has %d", n, len(d.b))
		return ""
	}
	address := string(d.b[:n])
	d.b = d.b[n:]
	return address
}

func (d *decoder) tasks() []plan.TaskID {
	var tasks []plan.TaskID
	for range d.count() {
		tasks = append(tasks, d.task())
	}
	return tasks
}

func (d *decoder) done() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes are left over", len(d.b))
	}
	return d.err
}
