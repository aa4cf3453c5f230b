//! What is promised to others: formats, protocols, and what the stand-ins share with Azure.

mod resource_manager;
