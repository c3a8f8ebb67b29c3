//! One reconciler: the API service, blueprints, the pure plan, drivers and controllers.
#![forbid(unsafe_code)]
