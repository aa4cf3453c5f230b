//! What holds for every input, looked for with many.

mod store_model;
