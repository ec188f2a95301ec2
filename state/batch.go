package state

// Batch is a list of writes in order. The zero value is ready; Reset keeps the
// memory. Not safe for concurrent use.
type Batch struct {
	buffer  []byte
	entries []batchEntry
}

type batchEntry struct {
	keyEnd, valueEnd int
	op               Op
}

// Op says what an entry of a Batch does.
type Op uint8

// The operations.
const (
	// OpPut sets the key to the value.
	OpPut Op = iota
	// OpDelete removes the key.
	OpDelete
	// OpDeleteBefore removes every key below the key.
	OpDeleteBefore
)

// Put adds a write; key and value are copied.
func (b *Batch) Put(key, value []byte) { b.add(OpPut, key, value) }

// Delete adds a deletion; key is copied.
func (b *Batch) Delete(key []byte) { b.add(OpDelete, key, nil) }

// DeleteBefore adds the deletion of every key below bound; bound is copied.
func (b *Batch) DeleteBefore(bound []byte) { b.add(OpDeleteBefore, bound, nil) }

func (b *Batch) add(op Op, key, value []byte) {
	b.buffer = append(b.buffer, key...)
	keyEnd := len(b.buffer)
	b.buffer = append(b.buffer, value...)
	b.entries = append(b.entries, batchEntry{keyEnd: keyEnd, valueEnd: len(b.buffer), op: op})
}

// Len returns the number of entries.
func (b *Batch) Len() int { return len(b.entries) }

// Bytes returns the size of all keys and values.
func (b *Batch) Bytes() int { return len(b.buffer) }

// Entry returns entry i. The slices alias the batch and are valid until Reset.
func (b *Batch) Entry(i int) (op Op, key, value []byte) {
	start := 0
	if i > 0 {
		start = b.entries[i-1].valueEnd
	}
	e := b.entries[i]
	return e.op, b.buffer[start:e.keyEnd:e.keyEnd], b.buffer[e.keyEnd:e.valueEnd:e.valueEnd]
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.buffer, b.entries = b.buffer[:0], b.entries[:0] }
