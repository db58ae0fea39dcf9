// Runs kernels/fp8_dequant.cu thread by thread; also checks the number formats of device.cuh, code by code.
#include "check.h"

#include "../fp8_dequant.cu"

using namespace check;

int main() {
  long cases = 0;
  for (uint32_t code = 0; code < 256; ++code, ++cases) {
    if ((code & 0x7f) == 0x7f) {
      expect(isnan(device::from_e4m3(code)), "code %#x is no NaN", code);
      continue;
    }
    const float value = device::to_float_e4m3(code);
    expect(device::from_e4m3(code) == value, "code %#x is %g, not %g", code, device::from_e4m3(code), value);
    expect(device::to_e4m3(value) == code, "%g becomes %#x, not %#x", value, device::to_e4m3(value), code);
    if ((code & 0x7f) == 0x7e) continue;
    // Halfway to the next code: to the even one; a little beside it: to the nearer one.
    const float next = device::to_float_e4m3(code + 1), middle = (value + next) / 2;
    expect(device::to_e4m3(middle) == (code % 2 ? code + 1 : code), "%g is no tie of %#x", middle, code);
    expect(device::to_e4m3(middle + (value - middle) * 1e-3f) == code, "below %g: not %#x", middle, code);
    expect(device::to_e4m3(middle + (next - middle) * 1e-3f) == code + 1, "above %g: not %#x", middle, code + 1);
  }
  expect(device::to_e4m3(1e9f) == 0x7e && device::to_e4m3(-INFINITY) == 0xfe, "large values do not saturate");
  expect(device::to_e4m3(NAN) == 0x7f && device::to_e4m3(-NAN) == 0xff, "a NaN becomes a number");
  expect(device::to_bf16(1.00390625f) == 0x3f80 && device::to_bf16(1.01171875f) == 0x3f82, "ties of bf16 do not go to even");

  for (int rows : {1, 5, 9})
    for (int columns : {1, 7, 130}) {
      Uniform draw(rows * columns);
      std::vector<uint8_t> codes(size_t(rows) * columns);
      for (auto& c : codes) c = uint8_t(draw.random() % 0x7f + 128 * (draw.random() % 2));
      const int per_row = (columns + 3) / 4;
      auto scales = floats(size_t((rows + 1) / 2) * per_row, draw);
      std::vector<float> values(codes.size(), NAN);
      std::vector<uint16_t> narrow(codes.size());
      emulate::launch(dim3(2, 3), dim3(32), 0, 1, [&] { fp8_dequantise_f32(codes.data(), scales.data(), values.data(), rows, columns, 2, 4); });
      emulate::launch(dim3(2, 3), dim3(32), 0, 1, [&] { fp8_dequantise_bf16(codes.data(), scales.data(), narrow.data(), rows, columns, 2, 4); });
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) {
          const float want = device::to_float_e4m3(codes[r * columns + c]) * scales[r / 2 * per_row + c / 4];
          expect(values[r * columns + c] == want, "weight (%d, %d)", r, c);
          expect(narrow[r * columns + c] == device::to_bf16(want), "narrow weight (%d, %d)", r, c);
        }

      auto x = floats(codes.size(), draw);
      if (rows > 1) std::fill(x.begin(), x.begin() + columns, 0.f);
      const auto x16 = bf16(x);
      std::vector<uint8_t> out(codes.size());
      std::vector<float> of_row(rows);
      emulate::launch(dim3((rows + 1) / 2), dim3(64), 0, 1, [&] { fp8_quantise_rows(x16.data(), out.data(), of_row.data(), rows, columns); });
      for (int r = 0; r < rows; ++r) {
        float top = 0;
        for (int c = 0; c < columns; ++c) top = std::max(top, fabsf(x[r * columns + c]));
        expect(of_row[r] == (top > 0 ? top / 448.f : 1.f), "scale of row %d", r);
        for (int c = 0; c < columns; ++c) {
          const float back = device::to_float_e4m3(out[r * columns + c]) * of_row[r];
          expect(fabsf(back - x[r * columns + c]) <= fabsf(x[r * columns + c]) / 16 + of_row[r] / 512, "row %d column %d", r, c);
        }
      }
      ++cases;
    }
  // A NaN anywhere in a row, before or after its maximum, spoils that row and no other.
  for (int place : {0, 3, 69}) {
    std::vector<uint16_t> x(3 * 70, 0x3f80);
    x[1 * 70 + place] = 0x7fc0;
    std::vector<uint8_t> codes(x.size());
    std::vector<float> scales(3);
    emulate::launch(dim3(1), dim3(96), 0, 1, [&] { fp8_quantise_rows(x.data(), codes.data(), scales.data(), 3, 70); });
    for (int r = 0; r < 3; ++r) {
      expect(isnan(scales[r]) == (r == 1), "scale of row %d is %g", r, scales[r]);
      for (int c = 0; c < 70; ++c) expect((codes[r * 70 + c] == 0x7f) == (r == 1), "code %#x of row %d", codes[r * 70 + c], r);
    }
    ++cases;
  }
  return report("fp8_dequant", cases);
}
