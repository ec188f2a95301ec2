package replica

import (
	"fmt"
	"slices"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
)

// straysNamed is how many logs that belong to no topic are named in the log.
const straysNamed = 10

// settleStrays deletes the logs whose topics were deleted, or that were moved to other
// brokers, while this one was down, as its metadata tells. Logs that no topic claims
// for no known reason are not deleted: if it is the metadata that was lost, they are all
// that is left.
func (m *Manager) settleStrays(image *metadata.Image) error {
	logs, err := m.cfg.Directory.List()
	if err != nil {
		return err
	}
	removed, strays := 0, []storage.LogID(nil)
	for _, id := range logs {
		switch m.claim(image, id) {
		case claimed:
		case unknown:
			strays = append(strays, id)
		case deleted:
			if err := m.cfg.Directory.Delete(id.Topic, id.Partition); err != nil {
				return err
			}
			removed++
		}
	}
	m.deleted = nil
	if removed > 0 {
		m.logger.Info().Int("logs", removed).Msg("deleted the logs of partitions that were deleted, or moved to others, while this broker was down")
	}
	if len(strays) > 0 {
		var names []string
		for _, id := range strays[:min(len(strays), straysNamed)] {
			names = append(names, fmt.Sprintf("%s-%d (topic id %s)", id.Topic, id.Partition, metadata.UUID(id.TopicID)))
		}
		m.logger.Warn().Int("logs", len(strays)).Strs("first", names).Str("directory", m.cfg.Directory.Root()).
			Msg("logs on disk belong to no topic; they are left alone, remove their directories if the topics were deleted")
	}
	return nil
}

// claim is what metadata says of a log on disk.
type claim int8

const (
	unknown claim = iota // nothing
	claimed              // it is a replica of this broker
	deleted              // it was one
)

func (m *Manager) claim(image *metadata.Image, id storage.LogID) claim {
	topic := metadata.UUID(id.TopicID)
	t, ok := image.Topic(id.Topic)
	switch {
	case id.Topic == metadata.ClusterTopic:
		return claimed
	case m.deleted[topic]:
		return deleted
	case !ok || t.ID != topic || int(id.Partition) >= len(t.Partitions):
		return unknown
	case !slices.Contains(t.Partitions[id.Partition].Replicas, m.cfg.NodeID):
		return deleted
	}
	return claimed
}
