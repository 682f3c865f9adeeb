#include "emulator/memory/page_cipher.hpp"

#include <algorithm>
#include <array>
#include <openssl/evp.h>

#include "base/error.hpp"

namespace sevisor::emulator {

namespace {

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

void check(int result, const char* what) {
  if (result != 1) throw Error(ExitCode::kCrash, what, "OpenSSL refused", "Check that OpenSSL offers AES-128-XTS.");
}

Context make_context(const std::array<unsigned char, 32>& keys, int encrypt) {
  Context context(EVP_CIPHER_CTX_new());
  if (!context) throw std::bad_alloc();
  check(EVP_CipherInit_ex(context.get(), EVP_aes_128_xts(), nullptr, keys.data(), nullptr, encrypt),
        "set up the memory encryption engine");
  return context;
}

}  // namespace

struct PageCipher::Impl {
  Context encrypt;
  Context decrypt;

  static void run(EVP_CIPHER_CTX* context, Spa spa, ConstPageBytes in, PageBytes out) {
    std::array<unsigned char, 16> tweak{};
    store(tweak.data(), spa.value);
    check(EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, tweak.data(), -1), "set the tweak of a page");
    int size = 0;
    check(EVP_CipherUpdate(context, reinterpret_cast<unsigned char*>(out.data()), &size,
                           reinterpret_cast<const unsigned char*>(in.data()), static_cast<int>(kPageSize)),
          "encrypt a page");
  }
};

PageCipher::PageCipher(std::span<const std::byte, 16> key, std::span<const std::byte, 16> tweak_key)
    : impl_(std::make_unique<Impl>()) {
  std::array<unsigned char, 32> keys{};
  std::copy_n(reinterpret_cast<const unsigned char*>(key.data()), 16, keys.begin());
  std::copy_n(reinterpret_cast<const unsigned char*>(tweak_key.data()), 16, keys.begin() + 16);
  impl_->encrypt = make_context(keys, 1);
  impl_->decrypt = make_context(keys, 0);
}

PageCipher::~PageCipher() = default;

void PageCipher::encrypt(Spa spa, ConstPageBytes in, PageBytes out) { Impl::run(impl_->encrypt.get(), spa, in, out); }
void PageCipher::decrypt(Spa spa, ConstPageBytes in, PageBytes out) { Impl::run(impl_->decrypt.get(), spa, in, out); }

}  // namespace sevisor::emulator
