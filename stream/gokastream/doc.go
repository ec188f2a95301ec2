// Package gokastream is for programs written with github.com/lovoo/goka. An
// unmodified one needs nothing of it: it runs on the broker as on Apache Kafka.
// With it, goka keeps its tables in Leat's stores (StorageBuilder), places keys
// as Kafka's other clients do (Hasher), and a GroupGraph runs as a guest of an
// App, with the App's addresses, dialer, stores and life (Guest).
//
// A guest is goka: it has a consumer group and connections of its own and its
// guarantee is at-least-once, whatever the App's is.
package gokastream
