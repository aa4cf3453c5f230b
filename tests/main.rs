//! Every test that looks at the product from outside, in one binary.

mod contract;
