package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// quorumCommand returns `leat cluster quorum`: who votes on the cluster's metadata.
func quorumCommand(f *clusterFlags) *cobra.Command {
	c := &cobra.Command{Use: "quorum", Short: "Show and change who votes on the cluster's metadata"}
	run := func(do func(*quorumCommands, context.Context, int32) error) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, args []string) error {
			node := int32(-1)
			if len(args) > 0 {
				var err error
				if node, err = brokerID(args[0]); err != nil {
					return err
				}
			}
			return f.connected(c, node, func(m *mover, ctx context.Context) error {
				return do(&quorumCommands{asker: m.asker, json: f.json, timeout: f.timeout, out: m.out}, ctx, node)
			})
		}
	}
	describe := &cobra.Command{
		Use:   "describe",
		Short: "Show the voters and observers, and how far each is behind the leader",
		Args:  cobra.NoArgs,
		RunE:  run(func(q *quorumCommands, _ context.Context, _ int32) error { return q.describe() }),
	}
	add := &cobra.Command{
		Use:   "add NODE",
		Short: "Make an observer a voter, once it has caught up",
		Long: `Make a controller that observes the metadata quorum a voter of it, in place of
what the node had before it lost its disk. It waits, up to the timeout, until the node has
caught up.`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(q *quorumCommands, _ context.Context, node int32) error { return q.add(node) }),
	}
	remove := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take the vote of a voter, which goes on as an observer if it runs",
		Long: `Take the vote of a voter. One that runs goes on as an observer, and does not vote
again until it is added; one that does not is forgotten. Keep an odd number of voters, and
remove one that is lost before another is.`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(q *quorumCommands, _ context.Context, node int32) error { return q.remove(node) }),
	}
	c.AddCommand(describe, add, remove)
	return c
}

// quorumCommands carries the commands out.
type quorumCommands struct {
	*asker
	json    bool
	timeout time.Duration
	out     io.Writer
}

// quorumMember is what describe prints of a member as JSON.
type quorumMember struct {
	Node      int32  `json:"node"`
	Directory string `json:"directory"`
	Role      string `json:"role"`
	End       int64  `json:"log_end_offset"`
	// Lag is in records, the times in ms; -1 when the leader does not know.
	Lag               int64 `json:"lag"`
	SinceLastHeard    int64 `json:"ms_since_last_heard"`
	SinceLastCaughtUp int64 `json:"ms_since_caught_up"`

	directory [16]byte
}

// quorumDescription is what describe prints as JSON.
type quorumDescription struct {
	Leader        int32          `json:"leader"`
	Epoch         int32          `json:"epoch"`
	HighWatermark int64          `json:"high_watermark"`
	Members       []quorumMember `json:"members"`
}

func (q *quorumCommands) ask(request kmsg.Request, version int16) (kmsg.Response, error) {
	return q.asker.ask(request, version, q.timeout+5*time.Second)
}

func (q *quorumCommands) load() (*quorumDescription, error) {
	request := kmsg.NewPtrDescribeQuorumRequest()
	request.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	answer, err := q.ask(request, 2)
	if err != nil {
		return nil, err
	}
	response := answer.(*kmsg.DescribeQuorumResponse)
	if response.ErrorCode != 0 {
		return nil, quorumError("describe the quorum", response.ErrorCode, response.ErrorMessage)
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("describe the quorum: the broker tells of %d topics, want one", len(response.Topics))
	}
	p := response.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return nil, quorumError("describe the quorum", p.ErrorCode, nil)
	}
	d := &quorumDescription{Leader: p.LeaderID, Epoch: p.LeaderEpoch, HighWatermark: p.HighWatermark}
	now := time.Now().UnixMilli()
	end := int64(-1)
	for _, r := range p.CurrentVoters {
		if r.ReplicaID == p.LeaderID {
			end = r.LogEndOffset
		}
	}
	members := func(role string, replicas []kmsg.DescribeQuorumResponseTopicPartitionReplicaState) {
		for _, r := range replicas {
			m := quorumMember{Node: r.ReplicaID, Directory: base64.RawURLEncoding.EncodeToString(r.ReplicaDirectoryID[:]), Role: role,
				End: r.LogEndOffset, Lag: -1, SinceLastHeard: since(now, r.LastFetchTimestamp), SinceLastCaughtUp: since(now, r.LastCaughtUpTimestamp),
				directory: r.ReplicaDirectoryID}
			if end >= 0 && r.LogEndOffset >= 0 {
				m.Lag = max(0, end-r.LogEndOffset)
			}
			if r.ReplicaID == p.LeaderID && role == "voter" {
				m.Role = "leader"
			}
			d.Members = append(d.Members, m)
		}
	}
	members("voter", p.CurrentVoters)
	members("observer", p.Observers)
	return d, nil
}

func since(now, at int64) int64 {
	if at < 0 {
		return -1
	}
	return max(0, now-at)
}

func quorumError(what string, code int16, message *string) error {
	if message != nil && *message != "" {
		return fmt.Errorf("%s: %w: %s", what, kerr.ErrorForCode(code), *message)
	}
	return fmt.Errorf("%s: %w", what, kerr.ErrorForCode(code))
}

func (q *quorumCommands) describe() error {
	d, err := q.load()
	if err != nil {
		return err
	}
	if q.json {
		return json.NewEncoder(q.out).Encode(d)
	}
	fmt.Fprintf(q.out, "leader %d, epoch %d, high watermark %d\n", d.Leader, d.Epoch, d.HighWatermark)
	w := tabwriter.NewWriter(q.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tROLE\tDIRECTORY\tLOG END\tLAG\tLAST HEARD\tCAUGHT UP")
	known := func(n int64, unit string) string {
		if n < 0 {
			return "-"
		}
		return fmt.Sprint(n, unit)
	}
	for _, m := range d.Members {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Node, m.Role, m.Directory, known(m.End, ""), known(m.Lag, ""),
			known(m.SinceLastHeard, " ms ago"), known(m.SinceLastCaughtUp, " ms ago"))
	}
	return w.Flush()
}

// find returns the member of a node, of those that a command can be about.
func (q *quorumCommands) find(node int32, what string, fits func(quorumMember) bool) (quorumMember, error) {
	d, err := q.load()
	if err != nil {
		return quorumMember{}, err
	}
	for _, m := range d.Members {
		if m.Node == node && fits(m) {
			return m, nil
		}
	}
	return quorumMember{}, fmt.Errorf("node %d is no %s of the quorum: `leat cluster quorum describe` lists those that there are", node, what)
}

func (q *quorumCommands) add(node int32) error {
	m, err := q.find(node, "observer", func(m quorumMember) bool { return m.Role == "observer" })
	if err != nil {
		return err
	}
	request := kmsg.NewPtrAddRaftVoterRequest()
	request.VoterID, request.VoterDirectoryID, request.TimeoutMillis = node, m.directory, int32(q.timeout.Milliseconds())
	answer, err := q.ask(request, 1)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.AddRaftVoterResponse)
	return q.done(fmt.Sprintf("add node %d", node), "votes now", node, response.ErrorCode, response.ErrorMessage)
}

func (q *quorumCommands) remove(node int32) error {
	m, err := q.find(node, "voter", func(m quorumMember) bool { return m.Role != "observer" })
	if err != nil {
		return err
	}
	request := kmsg.NewPtrRemoveRaftVoterRequest()
	request.VoterID, request.VoterDirectoryID = node, m.directory
	answer, err := q.ask(request, 0)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.RemoveRaftVoterResponse)
	return q.done(fmt.Sprintf("remove node %d", node), "does not vote any more", node, response.ErrorCode, response.ErrorMessage)
}

func (q *quorumCommands) done(what, happened string, node int32, code int16, message *string) error {
	if code != 0 {
		return quorumError(what, code, message)
	}
	if q.json {
		return json.NewEncoder(q.out).Encode(map[string]any{"node": node, "done": true})
	}
	_, err := fmt.Fprintf(q.out, "node %d %s\n", node, happened)
	return err
}
