// What systemd, or another service manager that follows its protocols, is told of a run.
#pragma once

#include <string>
#include <string_view>

namespace sevisor::vmm {

// sd_notify(3): datagrams of NAME=VALUE lines to the socket that NOTIFY_SOCKET names.
class ServiceManager {
 public:
  // Nobody: nothing is sent.
  ServiceManager() = default;
  // `socket`: a path, or '@' and a name in the abstract namespace. Throws Error (kBadUsage) for anything else.
  explicit ServiceManager(std::string_view socket);
  // The one that started this process, if one did.
  [[nodiscard]] static ServiceManager from_environment();

  // Sends one datagram, such as "READY=1\nSTATUS=running". What cannot be sent is no reason to end a guest: it is
  // logged as a warning.
  void tell(std::string_view state) const;

 private:
  std::string address_;  // as in sockaddr_un: of an abstract socket the first byte is 0; empty: nobody
};

// Whether the descriptor is a stream to systemd's journal, as JOURNAL_STREAM says (systemd.exec(5)).
[[nodiscard]] bool is_journal(int fd);

}  // namespace sevisor::vmm
