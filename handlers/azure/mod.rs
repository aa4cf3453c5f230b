//! Adapters to Azure.
