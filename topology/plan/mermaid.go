package plan

import (
	"fmt"
	"strings"
)

// Mermaid returns the plan as a flowchart in the language of Mermaid, which
// many viewers of Markdown draw: a box per sub-topology, cylinders for topics,
// double-edged boxes for stores; dotted arrows lead to stores and dead letters.
func (p *Plan) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	topics := map[string]string{}
	topic := func(t Topic) string {
		id, known := topics[t.String()]
		if !known {
			id = fmt.Sprintf("t%d", len(topics))
			topics[t.String()] = id
			fmt.Fprintf(&b, "  %s[(%s)]\n", id, mermaidText(t.String()))
		}
		return id
	}
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		nodes := map[string]string{}
		for n, o := range s.Operators {
			nodes[o.Name] = fmt.Sprintf("s%do%d", s.ID, n)
		}
		s.mermaid(&b, nodes)
		for _, source := range s.Sources {
			from := topic(source.Topic)
			fmt.Fprintf(&b, "  %s --> %s\n", from, nodes[source.Operator])
		}
		for _, sink := range s.Sinks {
			arrow := "-->"
			if sink.DeadLetter {
				arrow = "-.->"
			}
			to := topic(sink.Topic)
			fmt.Fprintf(&b, "  %s %s %s\n", nodes[sink.Operator], arrow, to)
		}
	}
	return b.String()
}

// mermaid draws a sub-topology whose operators have the ids in nodes, by name.
func (s *SubTopology) mermaid(b *strings.Builder, nodes map[string]string) {
	fmt.Fprintf(b, "  subgraph s%d[\"sub-topology %d\"]\n", s.ID, s.ID)
	for _, o := range s.Operators {
		lines := []string{o.Kind, o.Name}
		if o.Detail != "" {
			lines = append(lines, o.Detail)
		}
		fmt.Fprintf(b, "    %s[%s]\n", nodes[o.Name], mermaidText(lines...))
		for _, input := range o.Inputs {
			fmt.Fprintf(b, "    %s --> %s\n", nodes[input], nodes[o.Name])
		}
		if o.Store != "" {
			store := nodes[o.Name] + "store"
			fmt.Fprintf(b, "    %s[[%s]]\n    %s <-.-> %s\n", store, mermaidText(o.Store), nodes[o.Name], store)
		}
	}
	b.WriteString("  end\n")
}

// mermaidText quotes lines as a label. What would end the label or be taken for
// markup is written as an entity.
func mermaidText(lines ...string) string {
	escape := strings.NewReplacer("&", "#amp;", "#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;")
	escaped := make([]string, len(lines))
	for i, line := range lines {
		escaped[i] = escape.Replace(line)
	}
	return `"` + strings.Join(escaped, "<br/>") + `"`
}
