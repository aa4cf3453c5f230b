//! Every test that looks at the product from outside, in one binary: linking is the slow part.

mod contract;
mod property;
mod scenario;
mod support;
