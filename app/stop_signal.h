// How a long-lived verb is asked to stop: SIGTERM, or SIGINT (Ctrl-C).
#pragma once

namespace sluice {

// From now on these signals end the process no more, but are noted. Called once, before other
// threads are started.
void watch_stop_signals();

// The signal that came last; 0: none has. Any thread.
int stop_signal();

}  // namespace sluice
