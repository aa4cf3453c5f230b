//! Everything that is tested from outside the library, in one program: linking is the slow part.

mod contract;
mod property;
mod support;
