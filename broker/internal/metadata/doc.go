// Package metadata holds what the records of __cluster_metadata say and what
// they add up to: topics, partitions, brokers, configurations, the cluster id.
//
// A committed entry of the metadata log is one JSON value, so that any Kafka
// consumer can read it:
//
//	{"v":1,"changes":[
//	  {"type":"topic","name":"orders","id":"J2n1pQx0Tj6XkQm3b0Zr6w"},
//	  {"type":"partition","topic":"J2n1pQx0Tj6XkQm3b0Zr6w","partition":0,
//	   "replicas":[1],"isr":[1],"leader":1,"leader_epoch":0,"partition_epoch":0}]}
//
// One entry is one atomic set of changes. Applying it to an Image gives the next
// Image and the Delta between them. Images are immutable and share what did not
// change, so readers hold one without locks for as long as they like.
//
// A value with a higher version, an unknown change type or an unknown field is
// an error and never skipped: a node that cannot read a change must stop rather
// than drift apart from the others. A snapshot is the same list of changes,
// written from nothing.
//
// The package is pure: no clock, no randomness, no files, no goroutines.
package metadata
