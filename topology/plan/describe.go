package plan

import (
	"fmt"
	"strings"
)

// Describe returns the plan as text, for people and golden tests: sub-topologies
// with the topics they read and write, and their operators in the order in which
// records reach them, indented when fused into the chain of one above. Internal
// topics are told by the operator's name, since the app that prefixes it is not
// known here.
//
//	sub-topology 0: reads orders; writes by-user (repartition)
//	  from            orders               topic orders
//	    group-by      by-user              <- orders
//	    repartition   by-user.repartition  <- by-user; topic by-user; write
func (p *Plan) Describe() string {
	var b strings.Builder
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "sub-topology %d: reads %s", s.ID, list(s.Sources, func(t Source) string { return t.String() }))
		if len(s.Sinks) > 0 {
			fmt.Fprintf(&b, "; writes %s", list(s.Sinks, func(t Sink) string { return t.String() }))
		}
		for _, group := range s.Copartitioned {
			fmt.Fprintf(&b, "; co-partitioned %s", list(group, func(i int) string { return s.Sources[i].Name }))
		}
		b.WriteByte('\n')
		kinds, names := 0, 0
		for _, o := range s.Operators {
			kinds, names = max(kinds, len(o.indented())), max(names, len(o.Name))
		}
		for _, o := range s.Operators {
			line := fmt.Sprintf("  %-*s  %-*s  %s", kinds, o.indented(), names, o.Name, o.facts())
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	for i, topic := range p.Globals {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "global table of %s\n", topic)
	}
	return b.String()
}

// indented returns the kind, indented unless the operator heads its chain.
func (o *Operator) indented() string {
	if o.Chain != o.Name {
		return "  " + o.Kind
	}
	return o.Kind
}

// facts are what Describe says of an operator behind its name.
func (o *Operator) facts() string {
	var facts []string
	if len(o.Inputs) > 0 {
		facts = append(facts, "<- "+strings.Join(o.Inputs, ", "))
	}
	if o.Topic != "" {
		facts = append(facts, "topic "+o.Topic)
	}
	if o.Store != "" {
		facts = append(facts, "store "+o.Store)
	}
	if o.Detail != "" {
		facts = append(facts, o.Detail)
	}
	return strings.Join(facts, "; ")
}

// String returns the name, and what it is when internal.
func (t Topic) String() string {
	switch {
	case t.Internal && t.Partitions > 0:
		return fmt.Sprintf("%s (repartition, %d partitions)", t.Name, t.Partitions)
	case t.Internal:
		return t.Name + " (repartition)"
	}
	return t.Name
}

func list[T any](items []T, text func(T) string) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = text(item)
	}
	return strings.Join(texts, ", ")
}

// DOT returns the plan as a graph in the DOT language of Graphviz: a box per
// sub-topology, cylinders for topics, folders for stores.
//
//	go run . | dot -Tsvg > topology.svg
func (p *Plan) DOT() string {
	var b strings.Builder
	b.WriteString("digraph topology {\n\trankdir=LR\n\tnode [shape=box, style=rounded]\n")
	topics := map[string]bool{}
	topic := func(t Topic) string {
		id := fmt.Sprintf("%q", "topic "+t.String())
		if !topics[id] {
			topics[id] = true
			fmt.Fprintf(&b, "\t%s [label=%q, shape=cylinder]\n", id, t.String())
		}
		return id
	}
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		node := func(name string) string { return fmt.Sprintf("%q", fmt.Sprintf("%d %s", s.ID, name)) }
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=\"sub-topology %d\"\n", s.ID, s.ID)
		for _, o := range s.Operators {
			label := o.Kind + "\n" + o.Name
			if o.Detail != "" {
				label += "\n" + o.Detail
			}
			fmt.Fprintf(&b, "\t\t%s [label=%q]\n", node(o.Name), label)
			if o.Store != "" {
				fmt.Fprintf(&b, "\t\t%s [label=%q, shape=folder]\n", node("store "+o.Store), o.Store)
				fmt.Fprintf(&b, "\t\t%s -> %s [dir=both, style=dashed]\n", node(o.Name), node("store "+o.Store))
			}
			for _, input := range o.Inputs {
				fmt.Fprintf(&b, "\t\t%s -> %s\n", node(input), node(o.Name))
			}
		}
		b.WriteString("\t}\n")
		for _, source := range s.Sources {
			fmt.Fprintf(&b, "\t%s -> %s\n", topic(source.Topic), node(source.Operator))
		}
		for _, sink := range s.Sinks {
			style := ""
			if sink.DeadLetter {
				style = " [style=dotted]"
			}
			fmt.Fprintf(&b, "\t%s -> %s%s\n", node(sink.Operator), topic(sink.Topic), style)
		}
	}
	b.WriteString("}\n")
	return b.String()
}
