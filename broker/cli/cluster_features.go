package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// featuresCommand returns `leat cluster features`: the formats that the cluster has agreed
// on (KIP-584), metadata.version among them.
func featuresCommand(f *clusterFlags) *cobra.Command {
	c := &cobra.Command{Use: "features", Short: "Show and change the levels that the cluster has agreed on, such as metadata.version"}
	describe := &cobra.Command{
		Use:   "describe",
		Short: "Show the agreed level of each feature, and the levels that the program knows",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.connected(c, -1, func(m *mover, _ context.Context) error { return m.describeFeatures() })
		},
	}
	set := &cobra.Command{
		Use:   "set FEATURE=LEVEL...",
		Short: "Agree on other levels: higher ones once all nodes run the new program, lower ones to go back",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.connected(c, -1, func(m *mover, _ context.Context) error { return m.setFeatures(args) })
		},
	}
	c.AddCommand(describe, set)
	return c
}

// feature is what describe prints of one as JSON.
type feature struct {
	Name    string `json:"name"`
	Level   int16  `json:"level"` // 0: not used
	Lowest  int16  `json:"lowest"`
	Highest int16  `json:"highest"`
}

func (m *mover) features() ([]feature, error) {
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "leat-cli", "1"
	answer, err := m.ask(request, 4, m.timeout)
	if err != nil {
		return nil, err
	}
	response := answer.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, fmt.Errorf("ask for features: %w", err)
	}
	list := []feature{}
	for _, s := range response.SupportedFeatures {
		x := feature{Name: s.Name, Lowest: s.MinVersion, Highest: s.MaxVersion}
		for _, agreed := range response.FinalizedFeatures {
			if agreed.Name == s.Name {
				x.Level = agreed.MaxVersionLevel
			}
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b feature) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (m *mover) describeFeatures() error {
	list, err := m.features()
	if err != nil {
		return err
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(list)
	}
	w := tabwriter.NewWriter(m.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FEATURE\tLEVEL\tLOWEST\tHIGHEST")
	for _, x := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", x.Name, x.Level, x.Lowest, x.Highest)
	}
	return w.Flush()
}

// Types of a change, as in UpdateFeatures.
const (
	upgradeFeature   int8 = 1
	downgradeFeature int8 = 2 // that loses nothing
)

func (m *mover) setFeatures(args []string) error {
	list, err := m.features()
	if err != nil {
		return err
	}
	request := kmsg.NewPtrUpdateFeaturesRequest()
	request.TimeoutMillis = int32(m.timeout.Milliseconds())
	for _, arg := range args {
		name, text, _ := strings.Cut(arg, "=")
		level, err := strconv.ParseInt(text, 10, 16)
		if err != nil || level < 0 {
			return fmt.Errorf("%.100q: must be FEATURE=LEVEL, such as metadata.version=27", arg)
		}
		n := slices.IndexFunc(list, func(x feature) bool { return x.Name == name })
		if n < 0 {
			return fmt.Errorf("feature %.100q: the cluster does not know it; `leat cluster features describe` lists them", name)
		}
		update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		update.Feature, update.MaxVersionLevel, update.UpgradeType = name, int16(level), upgradeFeature
		if int16(level) < list[n].Level {
			update.UpgradeType = downgradeFeature
		}
		request.FeatureUpdates = append(request.FeatureUpdates, update)
	}
	answer, err := m.ask(request, 1, 2*m.timeout)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.UpdateFeaturesResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("set features: %w%s", err, reason(response.ErrorMessage))
	}
	for _, r := range response.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("set %s: %w%s", r.Feature, err, reason(r.ErrorMessage))
		}
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(map[string][]string{"set": args})
	}
	fmt.Fprintf(m.out, "the cluster has agreed on %s\n", strings.Join(args, ", "))
	return nil
}
