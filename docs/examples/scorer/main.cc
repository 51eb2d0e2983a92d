// Scores impressions, one a line of the standard input, and prints what `sluice score` prints.
//
//   score_lines SNAPSHOT < impressions.jsonl
//
// SNAPSHOT is a snapshot's folder, or a data folder for the one that LATEST names.
#include <charconv>
#include <iostream>
#include <string>
#include <vector>

#include <sluice/scorer.h>

// The shortest digits that read back as the same number.
std::string text_of(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: score_lines SNAPSHOT < impressions.jsonl\n";
    return 2;
  }
  std::string error;
  const auto scorer = sluice::scorer::Scorer::open(argv[1], {}, error);
  if (scorer == nullptr) {
    std::cerr << "score_lines: " << error << '\n';
    return 1;
  }
  // A request's impressions are scored together.
  std::vector<std::string> impressions;
  for (std::string line; std::getline(std::cin, line);) impressions.push_back(line);
  for (const sluice::scorer::Score& score : scorer->score(impressions)) {
    if (!score.error.empty()) {
      std::cout << "{\"error\": \"" << score.error << "\"}\n";
      continue;
    }
    std::cout << "{\"impression_id\": \"" << score.impression_id
              << "\", \"pctr\": " << text_of(score.pctr) << ", \"pcvr\": " << text_of(score.pcvr)
              << ", \"pctcvr\": " << text_of(score.pctcvr) << "}\n";
  }
  // A service would ask once in a while whether a newer snapshot is there.
  std::string reason;
  if (scorer->reload(reason) == sluice::scorer::Scorer::Reloaded::failed) {
    std::cerr << "score_lines: " << reason << '\n';
  }
  return 0;
}
