mod harness;
mod inspected;
mod live;
mod opening;
mod proxied;
