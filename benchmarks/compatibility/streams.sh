#!/bin/sh
# Runs topologies of Kafka Streams, those of Streams.java, over records from standard input:
#
#   streams.sh FOLDER_OF_JARS
#
# FOLDER_OF_JARS holds kafka-streams-test-utils 4.1 or later with what it needs. With Maven,
# in a folder with a pom.xml that depends on it:
#
#   mvn dependency:copy-dependencies -DoutputDirectory=FOLDER_OF_JARS
#
# Then
#
#   LEAT_TEST_STREAMS_LIB=FOLDER_OF_JARS go test ./benchmarks -run KafkaStreams -v
#
# compares them with those of Leat. Nothing is downloaded here. Needs Java 17 or later.
[ $# -eq 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
exec java -cp "$1/*" -Xmx512m "$(dirname "$0")/Streams.java"
