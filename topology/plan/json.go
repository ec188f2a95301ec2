package plan

import "encoding/json"

// The JSON of a plan: what Describe tells, for programs.
type (
	jsonPlan struct {
		SubTopologies []jsonSubTopology `json:"sub_topologies"`
		Globals       []string          `json:"globals,omitempty"`
	}
	jsonSubTopology struct {
		ID            int            `json:"id"`
		Sources       []jsonTopic    `json:"sources"`
		Sinks         []jsonTopic    `json:"sinks"`
		Copartitioned [][]string     `json:"copartitioned"`
		Stores        []jsonStore    `json:"stores"`
		Operators     []jsonOperator `json:"operators"`
	}
	jsonTopic struct {
		Topic      string `json:"topic"`
		Operator   string `json:"operator"`
		Internal   bool   `json:"internal,omitempty"`
		Partitions int32  `json:"partitions,omitempty"`
		DeadLetter bool   `json:"dead_letter,omitempty"`
	}
	jsonStore struct {
		Name      string `json:"name"`
		Changelog bool   `json:"changelog"`
	}
	jsonOperator struct {
		Name   string   `json:"name"`
		Kind   string   `json:"kind"`
		Inputs []string `json:"inputs"`
		Topic  string   `json:"topic,omitempty"`
		Store  string   `json:"store,omitempty"`
		Detail string   `json:"detail,omitempty"`
		Chain  string   `json:"chain"`
	}
)

// MarshalJSON implements json.Marshaler: what Describe tells, with lower-case
// names in snake case. Lists are never null. Internal topics have the name of
// their operator, since the app that prefixes it is not known here.
func (p *Plan) MarshalJSON() ([]byte, error) {
	out := jsonPlan{SubTopologies: []jsonSubTopology{}, Globals: p.Globals}
	for i := range p.SubTopologies {
		out.SubTopologies = append(out.SubTopologies, p.SubTopologies[i].json())
	}
	return json.Marshal(out)
}

func (s *SubTopology) json() jsonSubTopology {
	out := jsonSubTopology{
		ID: s.ID, Sources: []jsonTopic{}, Sinks: []jsonTopic{}, Copartitioned: [][]string{},
		Stores: []jsonStore{}, Operators: []jsonOperator{},
	}
	for _, t := range s.Sources {
		out.Sources = append(out.Sources, jsonTopic{Topic: t.Name, Operator: t.Operator, Internal: t.Internal, Partitions: t.Partitions})
	}
	for _, t := range s.Sinks {
		out.Sinks = append(out.Sinks, jsonTopic{
			Topic: t.Name, Operator: t.Operator, Internal: t.Internal, Partitions: t.Partitions, DeadLetter: t.DeadLetter,
		})
	}
	for _, group := range s.Copartitioned {
		names := []string{}
		for _, source := range group {
			names = append(names, s.Sources[source].Name)
		}
		out.Copartitioned = append(out.Copartitioned, names)
	}
	for _, spec := range s.Stores {
		out.Stores = append(out.Stores, jsonStore{Name: spec.Name, Changelog: !spec.NoChangelog})
	}
	for _, o := range s.Operators {
		inputs := append([]string{}, o.Inputs...)
		out.Operators = append(out.Operators, jsonOperator{
			Name: o.Name, Kind: o.Kind, Inputs: inputs, Topic: o.Topic, Store: o.Store, Detail: o.Detail, Chain: o.Chain,
		})
	}
	return out
}
