//! Container Apps.
