// What a sample says of its impression's labels, as the loss and the metrics read it.
#pragma once

namespace sluice {

// A label's value, and whether this sample is the one that trains what needs it. Each label is
// final on exactly one sample of an impression, y on the first.
struct FinalLabels {
  bool y = false;
  bool y_final = false;
  bool z = false;
  bool z_final = false;
  bool action = false;
  bool action_final = false;
  // Final since an earlier sample. y always is, where it is not final on this one.
  bool z_was_final = false;
  bool action_was_final = false;
};

}  // namespace sluice
