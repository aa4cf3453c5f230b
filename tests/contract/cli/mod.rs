//! The command line, as a person or a script meets it: the program itself against a platform that
//! answers as each test says.

mod fake;
mod operating;
mod reading;
mod sending;
mod staging;
