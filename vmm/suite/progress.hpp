// What the user sees while a suite runs: on a terminal the running cases below the finished ones, elsewhere a line for
// each case that has finished. From any thread.
#pragma once

#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "vmm/suite/case_run.hpp"

namespace sevisor::suite {

class Progress {
 public:
  // `total`: runs there will be. `live`: `out` is a terminal that can move its cursor. `colour`: and the user likes it.
  Progress(std::FILE* out, bool live, std::size_t total, bool colour = true)
      : out_(out), live_(live), colour_(live && colour), total_(total) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `id` names a run among those that run at the same time.
  void started(std::size_t id, std::string title);
  void doing(std::size_t id, std::string what);
  void finished(std::size_t id, const CaseResult& result);
  void tick();    // shows the time that passed
  void finish();  // takes the running cases off the screen

 private:
  struct Running {
    std::string title;
    std::string what;
    std::chrono::steady_clock::time_point start;
  };

  void draw();
  void print(const std::string& text) const;
  void erase();

  std::FILE* out_;
  bool live_;
  bool colour_;
  std::size_t total_;
  std::size_t done_ = 0;
  std::size_t drawn_ = 0;  // lines below the finished ones
  std::map<std::size_t, Running> running_;
  std::mutex mutex_;
};

// What was wrong, for people: several lines, each indented.
[[nodiscard]] std::string failure_text(const CaseResult& result);

}  // namespace sevisor::suite
