package metadata

import "fmt"

// CordonedLogDirs is the setting of brokers that get no further replicas (KIP-1066). A
// broker has one data directory here, so that it is "*" or nothing.
const CordonedLogDirs = "cordoned.log.dirs"

// everyDirectory is the value of CordonedLogDirs on a cordoned broker.
const everyDirectory = "*"

// Cordoned says that a broker gets no further replicas. Those it has stay.
func (i *Image) Cordoned(broker int32) bool {
	text, ok := i.brokerConfigs[broker][CordonedLogDirs]
	if !ok {
		text = i.brokerConfigs[-1][CordonedLogDirs]
	}
	return isCordon(text)
}

func isCordon(value string) bool {
	list := SplitList(value)
	return len(list) == 1 && list[0] == everyDirectory
}

func validateCordon(value string) error {
	if len(SplitList(value)) == 0 || isCordon(value) {
		return nil
	}
	return fmt.Errorf("%w: Invalid value %.100s for configuration %s: must be '*', for the broker's one directory, or empty", ErrConfig, value, CordonedLogDirs)
}
