//! RuntimeHealthService: says whether a workload is well, and whether a new revision may take traffic.

pub mod health_gate;
