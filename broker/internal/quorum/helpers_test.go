package quorum

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/leatlog/leat/broker/internal/record"
)

func testVoters() *raftpb.ConfState { return &raftpb.ConfState{Voters: []uint64{1, 2, 3}} }

func recordParse(data []byte) (record.Batch, []byte, error) { return record.Parse(data) }
