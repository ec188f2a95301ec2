// Package stream runs a topology against a cluster: an App reads the topology's
// topics as a consumer group, runs a task per partition on its workers, keeps
// their state, and commits.
//
//	app, err := stream.New(plan, stream.Config{
//		AppID: "rollup", Bootstrap: []string{"127.0.0.1:9092"}, StateDir: "/var/lib/rollup",
//	})
//	...
//	err = app.Run(ctx) // until ctx ends
//
// # What runs where
//
// An App is one member of the group named by its AppID. The group's leader
// gives each task (one partition of one sub-topology) to one member; a member
// spreads its tasks over its workers. A worker is one goroutine with one
// producer: it takes what the App's fetcher brings, runs its tasks, and commits
// them together. Processes of one App share the tasks; a rebalance stops only
// those that move.
//
// # Changed plans
//
// An App writes down what its plan leaves in the cluster (plan.Manifest), in the compacted
// topic <AppID>-plan. A start whose plan would misread that is refused with a PlanError;
// ComparePlan tells beforehand.
//
// # Commit
//
// Every CommitInterval a worker flushes its tasks' caches, waits until all
// outputs and changelogs are acknowledged by all in-sync replicas, commits the
// offsets of the sources, and only then lets the stores apply what was logged
// (docs/architecture.md, "State and commits"). With ExactlyOnce, the default, all
// of it is one transaction: a crash at any point goes on at the last commit, and
// readers of committed records see each effect once. With AtLeastOnce a crash
// replays from the last commit: nothing is lost, and some output may come twice.
package stream
