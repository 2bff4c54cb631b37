// Package queue is Helicon's contract: what a job is, which states it passes
// through, and how it travels durably over NATS JetStream from the gateway that
// accepts it to the one worker that commits its result. It imports nothing else
// of Helicon.
//
// Two streams hold everything. JOBS is a work queue: one message a job, on
// jobs.<modality>.<priority>.<tenant>.<job>, there until the job has ended.
// EVENTS is the record: everything that happened to a job, on events.<job>, and
// the last event of a job is its state. Each append to EVENTS names the sequence
// it expects to follow, so of two writers one loses and stops: that is the fence
// that gives every accepted job exactly one result.
//
// Workers take jobs from lines, one for each modality, priority and tenant: consumers of
// JOBS that come and go with their jobs. They take the tenants in turn.
package queue
