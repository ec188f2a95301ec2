package local

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology/plan"
)

// What --plan may be.
const (
	planText   = "text"
	planJSON   = "json"
	planExport = "export"
)

// errIncompatiblePlan ends an example with status 2.
var errIncompatiblePlan = errors.New("the program would refuse to start")

// planFlag registers --plan.
func (o *Options) planFlag(f *flag.FlagSet) {
	f.BoolFunc("plan", "compare the topology with the one that ran last and end: with status 2 when the example would refuse to start; "+
		"--plan=json tells it as JSON, --plan=export writes the plan for leat topology plan --file", func(value string) error {
		switch value {
		case "true":
			o.Plan = planText
		case planText, planJSON, planExport:
			o.Plan = value
		default:
			return fmt.Errorf("%q is not text, json or export", value)
		}
		return nil
	})
}

// ShowPlan writes what --plan asks for to out; asked is false without the flag.
func (o *Options) ShowPlan(ctx context.Context, p *plan.Plan, config stream.Config, out io.Writer) (asked bool, err error) {
	if o.Plan == "" {
		return false, nil
	}
	compared, err := stream.ComparePlan(ctx, p, config)
	if err != nil {
		return true, err
	}
	switch o.Plan {
	case planExport:
		var encoded []byte
		if encoded, err = compared.Program.Encode(); err == nil {
			_, err = fmt.Fprintf(out, "%s\n", encoded)
		}
		return true, err
	case planJSON:
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(compared)
	default:
		_, err = fmt.Fprint(out, compared)
	}
	if err == nil && compared.Class == plan.Incompatible {
		err = errIncompatiblePlan
	}
	return true, err
}
