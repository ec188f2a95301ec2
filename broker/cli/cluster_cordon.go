package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cordonSetting is the setting of brokers that get no further replicas (KIP-1066).
const cordonSetting = "cordoned.log.dirs"

// cordon begins or ends the cordon of the broker that the command is about.
func (m *mover) cordon(ctx context.Context, on bool) error {
	name := strconv.Itoa(int(m.drained))
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Op = cordonSetting, kmsg.IncrementalAlterConfigOpDelete
	if on {
		config.Op, config.Value = kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr("*")
	}
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeBroker, name
	resource.Configs = append(resource.Configs, config)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := m.ask(request, 1, 2*m.timeout)
	if err != nil {
		return err
	}
	for _, r := range answer.(*kmsg.IncrementalAlterConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("set %s of broker %s: %w%s", cordonSetting, name, err, reason(r.ErrorMessage))
		}
	}
	return m.waitCordon(ctx, on)
}

// waitCordon waits until the broker, if it is alive, tells of its cordon, or of its end:
// brokers may be a moment behind the controller, and a command that follows asks them.
func (m *mover) waitCordon(ctx context.Context, on bool) error {
	brokers, err := m.brokers()
	if err != nil {
		return err
	}
	n := slices.IndexFunc(brokers, func(b kmsg.DescribeClusterResponseBroker) bool { return b.NodeID == m.drained })
	if n < 0 || brokers[n].IsFenced {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if is, err := m.isCordoned(ctx, &brokers[n]); err != nil || is == on {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("broker %d has not heard of the change of %s: is it well?", m.drained, cordonSetting)
		}
	}
}

func (m *mover) undrain(ctx context.Context) error {
	if err := m.cordon(ctx, false); err != nil {
		return err
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(map[string]int32{"undrained": m.drained})
	}
	fmt.Fprintf(m.out, "broker %d gets replicas again\n", m.drained)
	return nil
}

// cordoned returns which of the brokers that are alive are cordoned. Each broker tells
// its own settings only.
func (m *mover) cordoned(ctx context.Context, brokers []kmsg.DescribeClusterResponseBroker) (map[int32]bool, error) {
	cordoned := map[int32]bool{}
	for n := range brokers {
		if b := &brokers[n]; !b.IsFenced {
			is, err := m.isCordoned(ctx, b)
			if err != nil {
				return nil, fmt.Errorf("ask broker %d for %s: %w", b.NodeID, cordonSetting, err)
			}
			cordoned[b.NodeID] = is
		}
	}
	return cordoned, nil
}

func (m *mover) isCordoned(ctx context.Context, b *kmsg.DescribeClusterResponseBroker) (bool, error) {
	a, err := dialAny(ctx, []string{net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))}, m.timeout)
	if err != nil {
		return false, err
	}
	defer a.close()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(b.NodeID))
	resource.ConfigNames = []string{cordonSetting}
	request := kmsg.NewPtrDescribeConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := a.ask(request, 4, m.timeout)
	if err != nil {
		return false, err
	}
	for _, r := range answer.(*kmsg.DescribeConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return false, fmt.Errorf("%w%s", err, reason(r.ErrorMessage))
		}
		for _, c := range r.Configs {
			if c.Name == cordonSetting {
				return c.Value != nil && *c.Value == "*", nil
			}
		}
	}
	return false, nil
}
