// Eight threads of mixed operations with eviction running, over every Store: for ThreadSanitizer above all. Whatever is
// read is right or refused for a reason that the race explains, and limits hold while it goes on.
#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::kAlice;
using testing::kBob;
using testing::make_put;
using testing::same_bytes;
using testing::SetSpec;

constexpr std::uint32_t kThreads = 8;
constexpr std::uint32_t kNames = 12;
constexpr std::chrono::milliseconds kEnough{1200};
constexpr std::array<std::uint64_t, 2> kLimits = {40 << 10, 60 << 10};

// Name i has the same content whoever puts it, so that every reader knows what it has to get.
SetSpec spec_of(std::uint32_t name) { return {.layers = 1 + name % 3, .kept = 4 + 5 * name, .doc_tokens = 100}; }

class Worker {
 public:
  Worker(StoreHost& host, std::vector<Store*> stores, std::uint32_t seed)
      : host_(host), stores_(std::move(stores)), random_(seed) {
    for (Store* store : stores_) {
      for (std::uint32_t name = 0; name < kNames; ++name) {
        requests_.push_back(make_put(spec_of(name), name, store->tenant(), static_cast<DType>(name % 3)));
        expected_.push_back(*as_stored(requests_.back().set, requests_.back().identity.storage));
      }
    }
  }

  void run_until(std::chrono::steady_clock::time_point end) {
    while (std::chrono::steady_clock::now() < end && !::testing::Test::HasFailure()) {
      which_ = random_() % requests_.size();
      store_ = stores_[which_ / kNames];
      id_ = cache_id(requests_[which_].identity, store_->tenant());
      step();
      ++steps;
    }
  }

  std::uint64_t steps = 0;

 private:
  void step() {
    switch (random_() % 20) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: put(); break;
      case 5:
      case 6:
      case 7:
      case 8: get(); break;
      case 9:
      case 10: stream_some(); break;
      case 11: expect_code(store_->remove(id_), {StatusCode::kNotFound}); break;
      case 12: expect_code(store_->set_label(id_, std::to_string(random_() % 100)), {StatusCode::kNotFound}); break;
      case 13:
        expect_code(store_->set_pinned(id_, random_() % 3 == 0),
                    {StatusCode::kNotFound, StatusCode::kResourceExhausted});
        break;
      case 14: expect_code(store_->set_expiry(id_, random_() % 4 == 0 ? 1 : 0), {StatusCode::kNotFound}); break;
      case 15: expect_code(store_->verify(id_), {StatusCode::kNotFound}); break;
      case 16: copy(); break;
      case 17: look(); break;
      case 18: operate(); break;
      default: list();
    }
  }

  void put() {
    PutRequest& request = requests_[which_];
    request.if_exists = random_() % 2 == 0 ? IfExists::kKeep : IfExists::kReplace;
    request.pinned = random_() % 16 == 0;
    request.ttl_ms = random_() % 4 == 0 ? 1 + random_() % 50 : 0;
    // Others may hold all there is, for a moment.
    expect_code(store_->put(request).status(), {StatusCode::kResourceExhausted});
  }

  void get() {
    const auto set = store_->get(id_);
    if (!set.is_ok()) return expect_code(set.status(), {StatusCode::kNotFound});
    ASSERT_EQ(set->layers.size(), expected().layers.size());
    for (std::size_t l = 0; l < set->layers.size(); ++l) expect_layer(set->layers[l], l);
  }

  void stream_some() {
    const auto entry = store_->stream(id_);
    if (!entry.is_ok()) return expect_code(entry.status(), {StatusCode::kNotFound});
    const auto layers = static_cast<std::uint32_t>(expected().layers.size());
    for (std::uint32_t i = random_() % (layers + 1); i != 0; --i) {
      const std::uint32_t l = random_() % layers;
      const auto layer = (*entry)->layer(l);
      ASSERT_TRUE(layer.is_ok()) << layer.status().to_string();
      expect_layer(*layer, l);
    }
  }

  void copy() {
    const auto packed = store_->read_packed(id_);
    if (!packed.is_ok()) return expect_code(packed.status(), {StatusCode::kNotFound});
    PutOptions options;
    options.if_exists = IfExists::kReplace;
    expect_code(store_->put_packed(*packed, options).status(), {StatusCode::kResourceExhausted});
  }

  void look() {
    const auto info = store_->find(id_);
    if (!info.is_ok()) return expect_code(info.status(), {StatusCode::kNotFound});
    EXPECT_EQ(info->identity, requests_[which_].identity);
    expect_code(store_->resolve_prefix(id_.hex()).status(), {StatusCode::kNotFound});
    expect_code(store_->read_origins(id_).status(), {StatusCode::kNotFound});
    expect_code(store_->read_document_tokens(id_).status(), {StatusCode::kNotFound});
  }

  void list() {
    const auto page = store_->list({}, 100);
    ASSERT_TRUE(page.is_ok()) << page.status().to_string();
    EXPECT_LE(page->entries.size(), kNames);
    EXPECT_TRUE(page->unreadable.empty());
    EXPECT_TRUE(store_->stats().is_ok());
  }

  void operate() {
    const auto report = host_.report();
    ASSERT_TRUE(report.is_ok()) << report.status().to_string();
    // Live bytes are summed up while others put and evict, so only what is taken in one look can be held against it.
    EXPECT_LE(report->reserved_bytes + report->held_bytes + report->pinned_bytes, kLimits[1]);
    switch (random_() % 8) {
      case 0: expect_code(host_.gc().status(), {}); break;
      case 1: {
        const auto scrubbed = host_.scrub({});
        ASSERT_TRUE(scrubbed.is_ok()) << scrubbed.status().to_string();
        EXPECT_TRUE(scrubbed->quarantined.empty());
        break;
      }
      case 2: {
        StoreSettings settings = host_.settings();
        settings.max_bytes = kLimits[random_() % 2];
        expect_code(host_.set_settings(settings), {StatusCode::kResourceExhausted});
        break;
      }
      case 3: expect_code(store_->rewrap_keys().status(), {StatusCode::kInvalidArgument}); break;
      default: break;
    }
  }

  [[nodiscard]] const KvSet& expected() const { return expected_[which_]; }
  void expect_layer(const KvLayer& layer, std::size_t l) const {
    EXPECT_TRUE(same_bytes(layer.keys, expected().layers[l].keys));
    EXPECT_TRUE(same_bytes(layer.values, expected().layers[l].values));
    EXPECT_TRUE(std::ranges::equal(layer.origins, expected().layers[l].origins));
  }
  static void expect_code(const Status& status, std::initializer_list<StatusCode> allowed) {
    EXPECT_TRUE(status.is_ok() || std::ranges::find(allowed, status.code()) != allowed.end()) << status.to_string();
  }

  StoreHost& host_;
  std::vector<Store*> stores_;
  std::mt19937 random_;
  std::vector<PutRequest> requests_;  // [stores][kNames]
  std::vector<KvSet> expected_;
  std::size_t which_ = 0;
  Store* store_ = nullptr;
  CacheId id_;
};

class StoreThreads : public testing::StoreTest {};

TEST_P(StoreThreads, EightThreadsWhileEntriesAreEvicted) {
  StoreSettings settings;
  settings.max_bytes = kLimits[1];
  settings.pinned_percent = 30;
  settings.durability = Durability::kInterval;  // threads should meet each other, not wait for the disk
  settings.sync_interval_ms = 20;
  open({.settings = settings, .upkeep_interval = std::chrono::milliseconds(20)});
  auto alice = view(kAlice);
  auto bob = sealed_view(kBob, {10});
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::uint32_t t = 0; t < kThreads; ++t) {
    workers.push_back(std::make_unique<Worker>(*host_, std::vector<Store*>{store_.get(), alice.get(), bob.get()}, t));
  }
  std::vector<std::thread> threads;
  const auto end = std::chrono::steady_clock::now() + kEnough;
  for (const auto& worker : workers) threads.emplace_back([&worker, end] { worker->run_until(end); });
  for (std::thread& thread : threads) thread.join();

  std::uint64_t steps = 0;
  for (const auto& worker : workers) steps += worker->steps;
  EXPECT_GT(steps, 10 * kThreads);
  ASSERT_TRUE(host_->gc().is_ok());
  const StoreReport last = report();
  RecordProperty("steps", static_cast<int>(steps));
  RecordProperty("evictions", static_cast<int>(last.evictions));
  EXPECT_GT(last.evictions, 0U);
  EXPECT_LE(used(last), kLimits[1]);
  EXPECT_EQ(last.reserved_bytes, 0U);
  EXPECT_EQ(last.held_bytes, 0U);
  for (Store* store : {store_.get(), alice.get(), bob.get()}) {
    const auto page = store->list({}, 100);
    for (const EntryInfo& info : page->entries) {
      const Status verified = store->verify(info.id);
      EXPECT_TRUE(verified.is_ok() || verified.code() == StatusCode::kNotFound) << verified.to_string();
    }
  }
  if (!GetParam().persistent) return;
  ASSERT_TRUE(host_->set_settings({}).is_ok());
  for (auto* one : {&alice, &bob}) one->reset();
  workers.clear();
  open({});  // where nothing goes on in the background
  const auto left = host_->gc();
  EXPECT_EQ(left->blocks, 0U) << left->puts << " puts";
}

// A store in memory sums up in one look, so its limit can be watched while others put and evict.
TEST(MemoryStoreThreads, TheLimitHoldsAtEveryMoment) {
  constexpr std::uint64_t kLimit = 100 << 10;
  StoreSettings settings;
  settings.max_bytes = kLimit;
  const auto host = *open_memory_store(settings);
  const auto store = *host->view({});
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < 300; ++i) {
        PutRequest request = make_put(spec_of((i + 3 * t) % kNames), (i + 3 * t) % 40);
        request.if_exists = IfExists::kReplace;
        (void)store->put(request).is_ok();
        (void)store->get(cache_id(request.identity, {})).is_ok();
      }
    });
  }
  std::uint64_t most = 0;
  std::thread watch([&] {
    while (!over.load()) {
      const auto now = host->report();
      most = std::max(most, now->total.stored_bytes + now->reserved_bytes + now->held_bytes);
    }
  });
  for (std::thread& thread : threads) thread.join();
  over.store(true);
  watch.join();
  EXPECT_LE(most, kLimit);
  EXPECT_GT(most, kLimit / 2);
  EXPECT_GT(host->report()->evictions, 0U);
}

FINCHKV_OVER_ALL_STORES(StoreThreads);

}  // namespace
}  // namespace finchkv::cache_store
