// Command leat runs a broker and talks to any Kafka-compatible cluster.
package main

func main() {}
