//! The devices of the machine. They see the machine through [`crate::bus`] and nothing else: no private memory, no processor.
