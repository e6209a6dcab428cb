//! The suite that every way to keep a store must pass, and what each of them must survive.

mod backup;
mod concurrency;
mod conformance;
mod damage;
mod disk;
mod faults;
mod grouping;
mod leases;
mod model;
mod place;
