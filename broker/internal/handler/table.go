package handler

import (
	"context"

	"github.com/leatlog/leat/broker/internal/wire"
)

// serveFunc answers one request. It does not block.
type serveFunc func(*Handler, context.Context, *wire.Request, wire.Responder)

// api is one API at the versions that are served.
type api struct {
	key      int16
	min, max int16
	serve    serveFunc
}

// apis are the APIs that are served, and the only ones that clients are told of.
// The lowest versions are Kafka 4's (KIP-896), the highest those of Kafka 4.2.
// Produce is told from version 0 on, since clients built on librdkafka before 2.0
// silently send uncompressed otherwise; a request below 3 closes the connection.
var apis = []api{
	{0, 3, 13, produce},
	{1, 4, 18, fetch},
	{2, 1, 11, listOffsets},
	{3, 0, 13, topicMetadata},
	{8, 2, 10, offsetCommit},
	{9, 1, 10, offsetFetch},
	{10, 0, 6, findCoordinator},
	{11, 0, 9, joinGroup},
	{12, 0, 4, heartbeat},
	{13, 0, 5, leaveGroup},
	{14, 0, 5, syncGroup},
	{15, 0, 6, describeGroups},
	{16, 0, 5, listGroups},
	{18, 0, 4, apiVersions},
	{19, 2, 7, createTopics},
	{20, 1, 6, deleteTopics},
	{21, 0, 2, deleteRecords},
	{22, 0, 5, initProducerID},
	{23, 2, 4, offsetForLeaderEpoch},
	{24, 0, 5, addPartitionsToTxn},
	{25, 0, 4, addOffsetsToTxn},
	{26, 0, 5, endTxn},
	{27, 1, 2, writeTxnMarkers},
	{28, 0, 5, txnOffsetCommit},
	{32, 1, 4, describeConfigs},
	{33, 0, 2, alterConfigs},
	{35, 1, 4, describeLogDirs},
	{37, 0, 3, createPartitions},
	{42, 0, 2, deleteGroups},
	{43, 0, 2, electLeaders},
	{44, 0, 1, incrementalAlterConfigs},
	{45, 0, 1, alterPartitionReassignments},
	{46, 0, 0, listPartitionReassignments},
	{47, 0, 0, offsetDelete},
	{55, 0, 2, describeQuorum},
	{57, 0, 2, updateFeatures},
	{60, 0, 2, describeCluster},
	{61, 0, 0, describeProducers},
	{64, 0, 0, unregisterBroker},
	{65, 0, 0, describeTransactions},
	{66, 0, 2, listTransactions},
	{68, 0, 1, consumerGroupHeartbeat},
	{69, 0, 1, consumerGroupDescribe},
	{74, 0, 1, listConfigResources},
	{75, 0, 0, describeTopicPartitions},
	{80, 0, 1, addRaftVoter},
	{81, 0, 0, removeRaftVoter},
}

// nodeAPIs are served besides on the listener that only nodes of the cluster connect
// to, and never to clients.
var nodeAPIs = []api{
	{56, 2, 3, alterPartition},
}
