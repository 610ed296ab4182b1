`default_nettype none

// V = B^T d B of patches of n x n words (n = 4 for F(2,3), 6 for F(4,3)), a word a cycle.
//
// A patch comes in the order (row, column) and goes out column by column: for each tap column l the
// words (0, l) .. (n-1, l). Nothing waits: words accepted in the cycles up to t make the last V of
// their patch come out in cycle t + n*n + 2*n + 1; a patch's n*n words come out in n*n
// consecutive cycles if it went in in as many. Patches may follow each other without a gap.
//
// The first dimension is transformed when a row of the patch is complete, the rows go to a memory of
// two patches, the second dimension when a column of it has been read back. Results are exact.
// Synchronous reset or flush drops what is inside; `form4` is stable from the flush on.
module patch_transform #(
    parameter integer FORMS = 1,  // 1: F(2,3), 2: F(4,3), 3: both
    parameter integer LANES = 4,
    parameter integer X_W   = 9,
    // derived
    parameter integer V_W   = X_W + (FORMS > 1 ? 7 : 2)
) (
    input wire clk,
    input wire rst,
    input wire flush,

    input wire form4,

    // patches; in_end goes with the last word of one
    input  wire                 in_valid,
    output wire                 in_end,
    input  wire [LANES*X_W-1:0] in_data,

    // transformed words; out_end goes with the last one of a patch, out_column with that of a column
    output wire                 out_valid,
    output wire                 out_column,
    output wire                 out_end,
    output wire [LANES*V_W-1:0] out_data
);
  localparam integer TAPS = FORMS > 1 ? 6 : 4;
  localparam integer GROWTH = FORMS > 1 ? 4 : 1;  // bits, of one dimension
  localparam integer ROW_W = X_W + GROWTH;
  localparam integer WIDE_W = ROW_W + GROWTH;
  localparam integer ADDR_W = $clog2(2 * TAPS * TAPS);

  wire [2:0] last_tap = form4 ? 3'd5 : 3'd3;
  wire [ADDR_W-1:0] taps = form4 ? ADDR_W'(6) : ADDR_W'(4);
  wire [ADDR_W-1:0] patch = form4 ? ADDR_W'(36) : ADDR_W'(16);

  // First dimension: a row is transformed when its last word is there, and written in n cycles.
  logic [2:0] in_row_q, in_col_q, write_col_q;
  logic [(TAPS-1)*LANES*X_W-1:0] row_q;
  logic [TAPS*LANES*ROW_W-1:0] turned_q;  // the next word to write lowest
  wire [TAPS*LANES*ROW_W-1:0] turned;
  logic writing_q, write_patch_end_q;
  logic [ADDR_W-1:0] write_addr_q;
  wire row_end = in_col_q == last_tap;
  wire row_in = in_valid && row_end;
  wire write_end = writing_q && write_col_q == last_tap;
  wire patch_written = write_end && write_patch_end_q;

  assign in_end = row_end && in_row_q == last_tap;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      in_row_q     <= '0;
      in_col_q     <= '0;
      writing_q    <= 1'b0;
      write_addr_q <= '0;
    end else begin
      if (in_valid) in_col_q <= row_end ? '0 : in_col_q + 1'b1;
      if (row_in) in_row_q <= in_end ? '0 : in_row_q + 1'b1;
      if (row_in || write_end) writing_q <= row_in;
      if (writing_q) begin
        write_addr_q <= write_addr_q == (patch << 1) - 1'b1 ? '0 : write_addr_q + 1'b1;
      end
    end
    write_col_q <= row_in ? '0 : write_col_q + 1'b1;
    turned_q    <= row_in ? turned : turned_q >> (LANES * ROW_W);
    if (row_in) write_patch_end_q <= in_end;
    for (int j = 0; j < TAPS - 1; j = j + 1) begin
      if (in_valid && in_col_q == 3'(j)) row_q[j*LANES*X_W+:LANES*X_W] <= in_data;
    end
  end

  // Second dimension: the n words of a column are read in n cycles.
  logic reading_q;
  logic [2:0] read_row_q, read_col_q;
  logic [ADDR_W-1:0] read_addr_q, read_base_q;  // of the next word, of the patch
  wire column_read = read_row_q == last_tap;
  wire patch_read = reading_q && column_read && read_col_q == last_tap;
  wire [ADDR_W-1:0] other_base = read_base_q == '0 ? patch : '0;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      reading_q   <= 1'b0;
      read_row_q  <= '0;
      read_col_q  <= '0;
      read_addr_q <= '0;
      read_base_q <= '0;
    end else begin
      if (patch_written || patch_read) reading_q <= patch_written;
      if (reading_q) begin
        read_row_q  <= column_read ? '0 : read_row_q + 1'b1;
        read_addr_q <= read_addr_q + taps;
        if (column_read) begin
          read_col_q  <= patch_read ? '0 : read_col_q + 1'b1;
          read_addr_q <= patch_read ? other_base : read_base_q + ADDR_W'(read_col_q) + 1'b1;
        end
        if (patch_read) read_base_q <= other_base;
      end
    end
  end

  wire [LANES*ROW_W-1:0] word;

  bank_memory #(
      .WORDS (2 * TAPS * TAPS),
      .LANES (1),
      .LANE_W(LANES * ROW_W)
  ) u_turn (
      .clk        (clk),
      .write      (writing_q),
      .write_lanes(1'b1),
      .write_addr (write_addr_q),
      .write_data (turned_q[LANES*ROW_W-1:0]),
      .read       (reading_q),
      .read_addr  (read_addr_q),
      .word       (word)
  );

  logic word_valid_q, word_patch_end_q, out_valid_q, out_patch_end_q;
  logic [2:0] word_row_q, out_row_q;
  logic [(TAPS-1)*LANES*ROW_W-1:0] column_q;
  logic [TAPS*LANES*V_W-1:0] out_q;  // the next word to go out lowest
  wire [TAPS*LANES*V_W-1:0] transformed;
  wire column_in = word_valid_q && word_row_q == last_tap;

  assign out_column = out_valid_q && out_row_q == last_tap;
  assign out_valid  = out_valid_q;
  assign out_end    = out_column && out_patch_end_q;
  assign out_data   = out_q[LANES*V_W-1:0];

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      word_valid_q <= 1'b0;
      out_valid_q  <= 1'b0;
    end else begin
      word_valid_q <= reading_q;
      if (column_in || out_column) out_valid_q <= column_in;
    end
    word_row_q       <= read_row_q;
    word_patch_end_q <= patch_read;
    out_row_q        <= column_in ? '0 : out_row_q + 1'b1;
    out_q            <= column_in ? transformed : out_q >> (LANES * V_W);
    if (column_in) out_patch_end_q <= word_patch_end_q;
    for (int i = 0; i < TAPS - 1; i = i + 1) begin
      if (word_valid_q && word_row_q == 3'(i)) column_q[i*LANES*ROW_W+:LANES*ROW_W] <= word;
    end
  end

  // The two transforms of each lane. The last word of a row or column is not stored before its use.
  genvar lane, tap;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      wire [  TAPS*X_W-1:0] row;
      wire [TAPS*ROW_W-1:0] row_v, column;
      wire [TAPS*WIDE_W-1:0] column_v;

      winograd_1d #(
          .FORMS(FORMS),
          .IN_W (X_W)
      ) u_row (
          .form4(form4),
          .d    (row),
          .v    (row_v)
      );

      winograd_1d #(
          .FORMS(FORMS),
          .IN_W (ROW_W)
      ) u_column (
          .form4(form4),
          .d    (column),
          .v    (column_v)
      );

      for (tap = 0; tap < TAPS; tap = tap + 1) begin : g_tap
        localparam integer PLACE = (tap < TAPS - 1 ? tap : 0) * LANES + lane;
        wire stored = tap < 3 || tap < TAPS - 1 && form4;
        assign row[tap*X_W+:X_W] = stored ? row_q[PLACE*X_W+:X_W] : in_data[lane*X_W+:X_W];
        assign column[tap*ROW_W+:ROW_W] = stored ? column_q[PLACE*ROW_W+:ROW_W] :
                                                   word[lane*ROW_W+:ROW_W];
        assign turned[(tap*LANES+lane)*ROW_W+:ROW_W] = row_v[tap*ROW_W+:ROW_W];

        // |v| <= 100 * 2^(X_W - 1) needs one bit fewer than each dimension alone says.
        wire [WIDE_W-1:0] v = column_v[tap*WIDE_W+:WIDE_W];
        wire unused_sign = ^v[WIDE_W-1:V_W-1];
        assign transformed[(tap*LANES+lane)*V_W+:V_W] = v[V_W-1:0];
      end
    end
  endgenerate
endmodule

`default_nettype wire
