// SHA-256 and HMAC-SHA256, by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace sevisor::sev {

using Digest = std::array<std::byte, 32>;

// A running hash: update() any number of times, then finish() once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  [[nodiscard]] Digest finish();
  // The digest of what came so far; the hash goes on.
  [[nodiscard]] Digest peek() const;
  // A hash that goes on from here on its own.
  [[nodiscard]] Sha256 fork() const;

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

[[nodiscard]] Digest sha256(std::span<const std::byte> bytes);
[[nodiscard]] Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes);
// The same where the result is itself a key, of which no other copy may be left.
void hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes, Digest& out);

}  // namespace sevisor::sev
