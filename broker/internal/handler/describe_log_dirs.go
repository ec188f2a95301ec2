package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeLogDirs (key 35), versions 1 to 4: KIP-113, KIP-827 (total and usable
// space).

// LogDir is a directory that holds logs.
type LogDir struct {
	Path string // absolute
	// Failed says that the directory is fenced after an error.
	Failed bool
	// Total and Usable are the bytes of its file system, -1 unknown.
	Total, Usable int64
	Logs          []LogSize
}

// LogSize is the size of one log.
type LogSize struct {
	Topic     string
	Partition int32
	Bytes     int64
}

func describeLogDirs(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DescribeLogDirsRequest)
	response := body.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	wanted := wantedLogs(body)
	h.workers.submit(respond, func() { // sizes may be asked of the disk
		for _, dir := range h.LogDirs() {
			response.Dirs = append(response.Dirs, describeDir(&dir, wanted))
		}
		respond(wire.Response{Body: response})
	})
}

// logName names a log.
type logName struct {
	topic     string
	partition int32
}

// wantedLogs is the logs that the request names; nil for all.
func wantedLogs(body *kmsg.DescribeLogDirsRequest) map[logName]bool {
	if body.Topics == nil {
		return nil
	}
	wanted := map[logName]bool{}
	for i := range body.Topics {
		for _, p := range body.Topics[i].Partitions {
			wanted[logName{body.Topics[i].Topic, p}] = true
		}
	}
	return wanted
}

func describeDir(from *LogDir, wanted map[logName]bool) kmsg.DescribeLogDirsResponseDir {
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir, dir.TotalBytes, dir.UsableBytes = from.Path, from.Total, from.Usable
	if from.Failed {
		dir.ErrorCode = kerr.KafkaStorageError.Code
		return dir
	}
	at := map[string]int{}
	for _, log := range from.Logs {
		if wanted != nil && !wanted[logName{log.Topic, log.Partition}] {
			continue
		}
		n, ok := at[log.Topic]
		if !ok {
			n = len(dir.Topics)
			at[log.Topic] = n
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = log.Topic
			dir.Topics = append(dir.Topics, t)
		}
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition, p.Size = log.Partition, log.Bytes
		dir.Topics[n].Partitions = append(dir.Topics[n].Partitions, p)
	}
	return dir
}
