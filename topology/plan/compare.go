package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Class says what a difference between two plans means for what the first has left.
type Class string

// The classes, the harmless ones first.
const (
	// Safe: everything durable is read as before.
	Safe Class = "safe"
	// New: something that was not there begins.
	New Class = "new"
	// Orphaned: something durable is not used any more. Its topics stay until someone
	// deletes them.
	Orphaned Class = "orphaned"
	// Incompatible: state or records in flight would be misread, or results be lost.
	Incompatible Class = "incompatible"
)

// Difference is one difference between the plan that ran and one that is to run.
type Difference struct {
	Class Class `json:"class"`
	// Operator is the operator's name in the new plan, or in the old one if it is gone.
	Operator string `json:"operator"`
	// What says what differs.
	What string `json:"what"`
	// Do says what to do about it, "" when nothing is to be done.
	Do string `json:"do,omitempty"`
	// Topics are the topics of the app that it is about.
	Topics []string `json:"topics,omitempty"`
}

// String returns the difference on one line.
func (d Difference) String() string {
	line := fmt.Sprintf("%s: operator %q: %s", d.Class, d.Operator, d.What)
	if d.Do != "" {
		line += ": " + d.Do
	}
	return line
}

// sameLayout are the kinds of operators that write the rows of their stores alike.
var sameLayout = []string{"count", "reduce", "aggregate", "count-table", "reduce-table", "aggregate-table", "to-table"}

// Compare tells how the plan of new differs from that of old, whose state and topics it is
// to go on with: stores first, then repartition topics, other topics and operators, each
// by name. Partition counts that one of the two does not know are not compared.
func Compare(old, new *Manifest) []Difference {
	c := &comparison{old: old, new: new}
	c.stores()
	c.repartitions()
	c.topics()
	c.operators()
	return c.found
}

// ClassOf returns the worst class among the differences, Safe when there are none.
func ClassOf(differences []Difference) Class {
	order := []Class{Safe, New, Orphaned, Incompatible}
	worst := 0
	for _, d := range differences {
		worst = max(worst, slices.Index(order, d.Class))
	}
	return order[worst]
}

type comparison struct {
	old, new *Manifest
	found    []Difference
	told     []string // operators about which all is said
}

func (c *comparison) add(d Difference) { c.found = append(c.found, d) }

func (c *comparison) stores() {
	for i := range c.new.Stores {
		now := &c.new.Stores[i]
		c.told = append(c.told, now.Operator)
		if was := find(c.old.Stores, now.Name); was != nil {
			c.told = append(c.told, was.Operator)
			c.store(was, now)
			continue
		}
		was := find(c.old.RetiredStores, now.Name)
		if was == nil {
			c.add(Difference{Class: New, Operator: now.Operator, Topics: topicsOf(now.Changelog),
				What: fmt.Sprintf("store %q is new and begins empty, with the records that the app has not processed yet", now.Name)})
			continue
		}
		if before := len(c.found); !c.store(was, now) {
			c.found = append(c.found[:before], Difference{Class: New, Operator: now.Operator, Topics: topicsOf(now.Changelog),
				What: fmt.Sprintf("store %q is back: it goes on with what an earlier plan left in it, and lacks what was processed since", now.Name),
				Do:   fmt.Sprintf("to begin empty, delete topic %s before the start", now.Changelog)})
		}
	}
	for _, was := range c.old.Stores {
		if find(c.new.Stores, was.Name) != nil {
			continue
		}
		c.told = append(c.told, was.Operator)
		d := Difference{Class: Orphaned, Operator: was.Operator, Topics: topicsOf(was.Changelog),
			What: fmt.Sprintf("store %q is not used any more", was.Name)}
		if was.Changelog != "" {
			d.Do = fmt.Sprintf("if the operator was renamed, give it Formerly(%q); otherwise delete topic %s when no earlier program needs it",
				formerly(was.Name, was.OperatorKind), was.Changelog)
		}
		c.add(d)
	}
}

// store compares two states of one store; incompatible when it cannot be read any more.
func (c *comparison) store(was, now *ManifestStore) (incompatible bool) {
	reset := fmt.Sprintf("give the new one another name, or stop the app, delete topic %s and let the store begin empty", was.Changelog)
	differ := func(what string, a, b any, do string) {
		if a == b {
			return
		}
		incompatible = true
		c.add(Difference{Class: Incompatible, Operator: now.Operator, Topics: topicsOf(was.Changelog),
			What: fmt.Sprintf("store %q: %s was %v and is %v", now.Name, what, a, b), Do: do})
	}
	note := func(what string, a, b any, do string) {
		if a != b {
			c.add(Difference{Class: Safe, Operator: now.Operator, Do: do,
				What: fmt.Sprintf("store %q: %s was %v and is %v", now.Name, what, a, b)})
		}
	}
	note("the operator's name", was.Operator, now.Operator, "")
	if !slices.Contains(sameLayout, was.OperatorKind) || !slices.Contains(sameLayout, now.OperatorKind) {
		differ("the kind of its operator", was.OperatorKind, now.OperatorKind, reset)
	} else {
		note("the kind of its operator", was.OperatorKind, now.OperatorKind, "")
	}
	differ("its kind", was.Kind, now.Kind, reset)
	named := "if only the type's name has changed, give the serde its old one with serde.WithName; otherwise " + reset
	differ("the serde of its keys", was.Key, now.Key, named)
	differ("the serde of its values", was.Value, now.Value, named)
	switch {
	case was.Kind != now.Kind:
	case now.Kind == "versioned":
		do := "" // what it leaves out is removed by and by
		if was.RetentionMS < now.RetentionMS {
			do = "versions that were older than it was are gone, later ones are kept longer"
		}
		note("the history", fmt.Sprint(was.RetentionMS, " ms"), fmt.Sprint(now.RetentionMS, " ms"), do)
	default:
		c.storeWindows(was, now, reset, differ, note)
	}
	if was.Changelog != now.Changelog {
		differ("its changelog", orNone(was.Changelog), orNone(now.Changelog), reset)
	}
	if was.Partitions != 0 && now.Partitions != 0 {
		differ("the number of its partitions", was.Partitions, now.Partitions,
			"it follows from the topics that are read: run the new plan under another AppID, or start the app over from its inputs")
	}
	return incompatible
}

// storeWindows compares the windows of a store that has the same kind as before.
func (c *comparison) storeWindows(was, now *ManifestStore, reset string, differ, note func(what string, a, b any, do string)) {
	a, b := was.Windows, now.Windows
	switch {
	case a == nil || b == nil:
		differ("its windows", a.String(), b.String(), reset)
		return
	case a.Kind == "join" && b.Kind == "join" && !(a.OnClose && b.OnClose):
		differ("the time that a row of it spans", fmt.Sprint(was.WindowSizeMS, " ms"), fmt.Sprint(now.WindowSizeMS, " ms"), reset)
		note("its windows", a.String(), b.String(), "")
	default:
		differ("its windows", a.String(), b.String(), reset)
	}
	note("emission on close", a.OnClose, b.OnClose, "")
	if a.OnClose && b.OnClose {
		differ("the grace", fmt.Sprint(a.GraceMS, " ms"), fmt.Sprint(b.GraceMS, " ms"),
			"results that wait for the close would be lost or come twice; keep the grace, or "+reset)
	} else {
		note("the grace", fmt.Sprint(a.GraceMS, " ms"), fmt.Sprint(b.GraceMS, " ms"), "")
	}
	if was.RetentionMS < now.RetentionMS {
		note("the retention", fmt.Sprint(was.RetentionMS, " ms"), fmt.Sprint(now.RetentionMS, " ms"),
			fmt.Sprintf("set retention.ms of topic %s to at least as much", was.Changelog))
	} else {
		note("the retention", fmt.Sprint(was.RetentionMS, " ms"), fmt.Sprint(now.RetentionMS, " ms"), "")
	}
}

func (c *comparison) repartitions() {
	for _, now := range c.new.Repartitions {
		c.told = append(c.told, now.Operator)
		was := find(c.old.Repartitions, now.Topic)
		if was == nil {
			was = find(c.old.RetiredRepartitions, now.Topic)
		}
		if was == nil {
			c.add(Difference{Class: New, Operator: now.Operator, Topics: topicsOf(now.Topic),
				What: fmt.Sprintf("repartition topic %s is new", now.Topic)})
			continue
		}
		c.told = append(c.told, was.Operator)
		if was.Operator != now.Operator {
			c.add(Difference{Class: Safe, Operator: now.Operator, Topics: topicsOf(now.Topic),
				What: fmt.Sprintf("repartition topic %s: the operator's name was %s and is %s", now.Topic, was.Operator, now.Operator)})
		}
		drain := fmt.Sprintf("the records in it would be misread: give the new one another name, or stop the app, delete topic %s and give up what it holds", now.Topic)
		for _, part := range []struct{ what, was, is, do string }{
			{"the serde of its keys", was.Key, now.Key, drain}, {"the serde of its values", was.Value, now.Value, drain},
			{"the number of its partitions", count(was.Partitions, now.Partitions), count(now.Partitions, was.Partitions),
				"give it its former number with Partitions, run the new plan under another AppID, or start the app over from its inputs"},
		} {
			if part.was != part.is {
				c.add(Difference{Class: Incompatible, Operator: now.Operator, Topics: topicsOf(now.Topic), Do: part.do,
					What: fmt.Sprintf("repartition topic %s: %s was %s and is %s", now.Topic, part.what, part.was, part.is)})
			}
		}
	}
	for _, was := range c.old.Repartitions {
		if find(c.new.Repartitions, was.Topic) == nil {
			c.told = append(c.told, was.Operator)
			c.add(Difference{Class: Orphaned, Operator: was.Operator, Topics: topicsOf(was.Topic),
				What: fmt.Sprintf("repartition topic %s is not used any more, and what is left in it is not processed", was.Topic),
				Do:   "if the operator was renamed, give it its former name with Formerly; otherwise delete the topic when no earlier program needs it"})
		}
	}
}

// count returns n as text, "" when one of the two counts is not known.
func count(n, other int32) string {
	if n == 0 || other == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// topics compares the topics that are not the app's: what is in them is others' business,
// so that no difference is worse than Safe.
func (c *comparison) topics() {
	with := func(m *Manifest, t ManifestTopic) *ManifestTopic {
		for i := range m.Topics {
			if m.Topics[i].Topic == t.Topic && m.Topics[i].Role == t.Role {
				return &m.Topics[i]
			}
		}
		return nil
	}
	verb := map[string]string{"source": "read", "sink": "written"}
	for _, now := range c.new.Topics {
		was := with(c.old, now)
		if was == nil {
			c.add(Difference{Class: New, Operator: now.Operator, What: fmt.Sprintf("topic %s is now %s", now.Topic, verb[now.Role])})
			c.told = append(c.told, now.Operator)
			continue
		}
		c.told = append(c.told, was.Operator, now.Operator)
		for _, part := range []struct{ what, was, is string }{
			{"the serde of its keys", was.Key, now.Key}, {"the serde of its values", was.Value, now.Value},
			{"the number of its partitions", count(was.Partitions, now.Partitions), count(now.Partitions, was.Partitions)},
		} {
			if part.was != part.is {
				c.add(Difference{Class: Safe, Operator: now.Operator,
					What: fmt.Sprintf("topic %s: %s was %s and is %s", now.Topic, part.what, part.was, part.is)})
			}
		}
	}
	for _, was := range c.old.Topics {
		if with(c.new, was) == nil {
			c.add(Difference{Class: Safe, Operator: was.Operator, What: fmt.Sprintf("topic %s is no longer %s", was.Topic, verb[was.Role])})
			c.told = append(c.told, was.Operator)
		}
	}
}

// operators compares those that leave nothing durable and about which nothing was said yet.
func (c *comparison) operators() {
	told := func(name string) bool {
		return slices.Contains(c.told, name) || slices.Contains(c.told, strings.TrimSuffix(name, repartitionSuffix))
	}
	for _, now := range c.new.Operators {
		was := find(c.old.Operators, now.Name)
		switch {
		case told(now.Name):
		case was == nil:
			c.add(Difference{Class: New, Operator: now.Name, What: fmt.Sprintf("this %s is new; it leaves nothing durable", now.Kind)})
		case was.Kind != now.Kind:
			c.add(Difference{Class: Safe, Operator: now.Name, What: fmt.Sprintf("it was a %s and is a %s; it leaves nothing durable", was.Kind, now.Kind)})
		}
	}
	for _, was := range c.old.Operators {
		if !told(was.Name) && find(c.new.Operators, was.Name) == nil {
			c.add(Difference{Class: Safe, Operator: was.Name, What: fmt.Sprintf("this %s is gone; it left nothing durable", was.Kind)})
		}
	}
}

// formerly is the name to give to Formerly for a store, which for the second store of a
// foreign-key join is not the store's.
func formerly(store, kind string) string {
	if kind == "subscribers" {
		return strings.TrimSuffix(store, "-subscriptions")
	}
	return store
}

// topicsOf returns the names that are not empty.
func topicsOf(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

func orNone(topic string) string {
	if topic == "" {
		return "none"
	}
	return topic
}
