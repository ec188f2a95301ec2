// Package wire holds what the broker's sockets and its handlers share: requests,
// responses, the header around them, and the check that makes decoding safe.
//
// A frame on a connection:
//
//	0        4           6           8                12
//	+--------+-----------+-----------+----------------+------------------+------+
//	| size   | key       | version   | correlation id | client id, tags  | body |
//	| int32  | int16     | int16     | int32          | nullable string  |      |
//	+--------+-----------+-----------+----------------+------------------+------+
//
// The body is decoded by kmsg. kmsg trusts lengths: it allocates an array of as
// many elements as the frame claims, as long as there is one byte left for each,
// and loops as often as a frame claims to have tagged fields. Hence every frame
// is first walked by its schema (schema_table.go): every length must fit into what is
// left, every array must really have its elements. What passes costs memory in
// proportion to its size.
//
// Decoding copies strings, but byte fields (records, metadata of members) alias
// the frame.
package wire
