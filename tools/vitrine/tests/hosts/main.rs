//! What `vitrine` does on hosts of trust domains, without one: machines made of files, QEMUs made of scripts, and a quote generation
//! service that speaks Intel's protocol under a test root.

mod doctor;
mod report;
mod run;
mod support;
