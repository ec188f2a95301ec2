#!/bin/sh
# Runs Apache Kafka's Java clients, driven by Clients.java, against a cluster:
#
#   clients.sh FOLDER_OF_JARS HOST:PORT [PATTERN]
#
# FOLDER_OF_JARS holds kafka-clients 4.1 or later with what it needs, such as libs/ of an
# Apache Kafka distribution. Nothing is downloaded. Needs Java 17 or later.
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
jars=$1
shift
exec java -cp "$jars/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=off -Xmx256m "$(dirname "$0")/Clients.java" "$@"
