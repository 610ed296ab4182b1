`default_nettype none

// Reads words from the output banks, a piece a cycle, and puts them together to beats (rule T8).
//
// A run is a plane cw. Its words come from bank start_bank at address start_base + cw upwards: the
// next one from the next bank, past bank ROWS - 1 the address grows by out_words; after the last
// word of an output row (first_row_words, then row_words each) gap_banks and gap_words are
// skipped. A piece is the next words of the beat that belong to the run, at most ROWS, of one
// output row; where words are longer than beats it is a part of a word. The first piece is read 2
// cycles after `start`, the first of a beat at the earliest in the cycle in which the beat before is
// taken. A beat is out in the cycle after its last piece is read and stays until it is taken.
//
// With start_form 1 or 2 (F(2,3), F(4,3); rule W6) a bank's words are tiles of m x m outputs, m being
// 2 or 4: m words of an output row come from a bank, out_words addresses apart, and m output rows
// from the same tiles, m * out_words apart; tiles are m * m * out_words apart. Pieces are one word.
//
// Strobes: the bytes of the run's words, but no lane below first_lane in plane 0 and none above
// last_lane in the last plane; bytes without strobe are 0. All start_* are sampled at `start`.
// Addresses count in 32 bits; one beyond OUT_WORDS - 1 is a `bounds_error`, and its piece gets no
// strobes. Reset: nothing to do.
module output_packer #(
    parameter integer ROWS       = 4,
    parameter integer FEED       = 1,
    parameter integer CODE_W     = 8,
    parameter integer DATA_W     = 64,
    parameter integer OUT_WORDS  = 1024,
    // derived
    parameter integer OUT_ADDR_W = OUT_WORDS > 1 ? $clog2(OUT_WORDS) : 1,
    parameter integer WORD_W     = FEED * CODE_W
) (
    input wire clk,
    input wire rst,

    // the runs
    input wire        start,
    input wire [31:0] start_byte,
    input wire [31:0] start_runs,
    input wire [31:0] start_words,
    input wire [31:0] start_stride,
    input wire [31:0] start_base,
    input wire [15:0] start_bank,
    input wire [31:0] start_first_row_words,
    input wire [31:0] start_row_words,
    input wire [15:0] start_gap_banks,
    input wire [31:0] start_gap_words,
    input wire [ 7:0] start_first_lane,
    input wire [ 7:0] start_last_lane,
    input wire [31:0] start_out_words,
    input wire [ 1:0] start_form,

    // banks
    output wire                       out_read,
    output wire [ROWS*OUT_ADDR_W-1:0] out_read_addr,
    input  wire [    ROWS*WORD_W-1:0] out_read_data,

    // beats
    output wire                beat_valid,
    input  wire                beat_taken,
    output wire [  DATA_W-1:0] beat,
    output wire [DATA_W/8-1:0] beat_strobes,

    output wire bounds_error
);
  localparam integer BEAT_WORDS = DATA_W > WORD_W ? DATA_W / WORD_W : 1;
  localparam integer PARTS = WORD_W > DATA_W ? WORD_W / DATA_W : 1;  // beats of a word
  localparam integer SPAN_W = BEAT_WORDS * WORD_W;
  localparam integer WIDER_W = SPAN_W > 2 * ROWS * WORD_W ? SPAN_W : 2 * ROWS * WORD_W;
  localparam integer SPAN_LANES = BEAT_WORDS * FEED;
  localparam integer BEAT_LANES = DATA_W / CODE_W;
  localparam integer BYTE_BITS = $clog2(WORD_W / 8);  // address bits inside a word
  localparam integer WORD_BITS = $clog2(WORD_W);
  localparam integer POS_W = BEAT_WORDS > 1 ? $clog2(BEAT_WORDS) : 1;
  localparam integer PART_W = PARTS > 1 ? $clog2(PARTS) : 1;
  localparam integer BANK_W = $clog2(ROWS) + 1;  // holds ROWS

  // Banks are less than ROWS.
  wire unused_bank = &{start_bank[15:BANK_W], start_gap_banks[15:BANK_W]};

  // A position in a beat, modulo its words
  function automatic [POS_W-1:0] in_beat(input [31:0] words);
    in_beat = POS_W'(words & (BEAT_WORDS - 1));
  endfunction

  // What `start` sampled
  logic [31:0] words_q, stride_q, first_row_words_q, row_words_q, gap_words_q, out_words_q;
  logic [1:0] form_q;  // log2 of m
  logic [BANK_W-1:0] first_bank_q, gap_banks_q;
  logic [FEED-1:0] from_first_q, to_last_q;  // lanes written in plane 0, in the last plane

  always_ff @(posedge clk) begin
    if (start) begin
      words_q           <= start_words;
      stride_q          <= start_stride;
      first_row_words_q <= start_first_row_words;
      row_words_q       <= start_row_words;
      gap_words_q       <= start_gap_words;
      out_words_q       <= start_out_words;
      form_q            <= start_form;
      first_bank_q      <= BANK_W'(start_bank);
      gap_banks_q       <= BANK_W'(start_gap_banks);
      from_first_q      <= {FEED{1'b1}} << start_first_lane;
      to_last_q         <= ~({FEED{1'b1}} << start_last_lane << 1);
    end
  end

  // The piece: the words of the beat that follow pos_q
  logic begin_q, active_q;              // active: there are words to read
  logic [31:0] runs_left_q;             // this one included
  logic [31:0] run_left_q, row_left_q;  // words from pos_q to the end
  logic [POS_W-1:0] pos_q, run_pos_q;   // word in the beat; of the run's first
  logic [PART_W-1:0] part_q;            // beat of the word
  wire [31:0] beat_left = BEAT_WORDS - 32'(pos_q);
  logic [31:0] words;

  always_comb begin
    words = beat_left;
    if (words > ROWS) words = ROWS;
    if (form_q != 2'd0) words = 32'd1;
    if (words > run_left_q) words = run_left_q;
    if (words > row_left_q) words = row_left_q;
  end

  wire word_end = part_q == PART_W'(PARTS - 1);
  wire run_end = words == run_left_q;
  wire row_end = words == row_left_q;
  wire last_run = runs_left_q == 32'd1;
  wire beat_end = words == beat_left || run_end || !word_end;
  wire [POS_W-1:0] next_run_pos = in_beat(32'(run_pos_q) + (stride_q >> BYTE_BITS));

  // A piece that is the last of its beat stays at the banks' outputs until the beat is taken.
  logic piece_valid_q, piece_last_q;
  wire read = active_q && (!beat_valid || beat_taken);
  wire moves = read && word_end;

  assign beat_valid = piece_valid_q && piece_last_q;
  assign out_read   = read;

  always_ff @(posedge clk) begin
    if (rst) begin
      begin_q       <= 1'b0;
      active_q      <= 1'b0;
      piece_valid_q <= 1'b0;
    end else begin
      begin_q <= start;
      if (begin_q) active_q <= 1'b1;
      else if (moves && run_end && last_run) active_q <= 1'b0;
      piece_valid_q <= read || beat_valid && !beat_taken;
    end
  end

  always_ff @(posedge clk) begin
    if (start) begin
      runs_left_q <= start_runs;
      run_left_q  <= start_words;
      row_left_q  <= start_first_row_words;
      pos_q       <= in_beat(start_byte >> BYTE_BITS);
      run_pos_q   <= in_beat(start_byte >> BYTE_BITS);
      part_q      <= '0;
    end else if (read) begin
      part_q <= word_end ? '0 : part_q + 1'b1;
      if (moves) begin
        run_left_q <= run_end ? words_q : run_left_q - words;
        row_left_q <= run_end ? first_row_words_q : row_end ? row_words_q : row_left_q - words;
        pos_q      <= run_end ? next_run_pos : in_beat(32'(pos_q) + words);
        if (run_end) begin
          runs_left_q <= runs_left_q - 1'b1;
          run_pos_q   <= next_run_pos;
        end
      end
    end
  end

  // Bank and address of the next tile: beyond the piece, and beyond the gap at a row's end. A tile
  // is one word, or m x m.
  logic [31:0] addr_q, plane_q, row_addr_q;  // of the tile, the plane, the row of tiles
  logic [BANK_W-1:0] bank_q, row_bank_q;
  logic [31:0] sub_q, row_sub_q;  // words before this output of the tile, before its output row
  logic [1:0] in_row_q, in_column_q;  // output of the tile
  wire [1:0] last_output = form_q[1] ? 2'd3 : form_q;
  wire [31:0] line_words = out_words_q << {form_q, 1'b0};
  wire tile_end = row_end || in_column_q == last_output;
  wire rows_end = row_end && in_row_q == last_output;
  wire [BANK_W-1:0] bank_sum = bank_q + BANK_W'(words);
  wire bank_wraps = bank_sum >= BANK_W'(ROWS);
  wire [BANK_W-1:0] next_bank = bank_wraps ? bank_sum - BANK_W'(ROWS) : bank_sum;
  wire [31:0] next_addr = addr_q + (bank_wraps ? line_words : '0);
  wire [BANK_W-1:0] row_bank_sum = next_bank + gap_banks_q;
  wire row_bank_wraps = row_bank_sum >= BANK_W'(ROWS);
  wire [BANK_W-1:0] row_bank = row_bank_wraps ? row_bank_sum - BANK_W'(ROWS) : row_bank_sum;
  wire [31:0] row_addr = next_addr + gap_words_q + (row_bank_wraps ? line_words : '0);
  wire [31:0] next_row_sub = row_sub_q + (out_words_q << form_q);

  always_ff @(posedge clk) begin
    if (start) begin
      plane_q     <= start_base;
      addr_q      <= start_base;
      row_addr_q  <= start_base;
      bank_q      <= BANK_W'(start_bank);
      row_bank_q  <= BANK_W'(start_bank);
      sub_q       <= '0;
      row_sub_q   <= '0;
      in_row_q    <= '0;
      in_column_q <= '0;
    end else if (moves) begin
      in_column_q <= tile_end ? '0 : in_column_q + 1'b1;
      sub_q       <= tile_end ? row_sub_q : sub_q + out_words_q;
      if (tile_end) begin
        addr_q <= next_addr;
        bank_q <= next_bank;
      end
      if (row_end) begin
        in_row_q  <= in_row_q + 1'b1;
        row_sub_q <= next_row_sub;
        sub_q     <= next_row_sub;
        addr_q    <= row_addr_q;
        bank_q    <= row_bank_q;
      end
      if (rows_end || run_end) begin
        in_row_q   <= '0;
        row_sub_q  <= '0;
        sub_q      <= '0;
        addr_q     <= run_end ? plane_q + 1'b1 : row_addr;
        row_addr_q <= run_end ? plane_q + 1'b1 : row_addr;
        bank_q     <= run_end ? first_bank_q : row_bank;
        row_bank_q <= run_end ? first_bank_q : row_bank;
      end
      if (run_end) plane_q <= plane_q + 1'b1;
    end
  end

  wire [31:0] place = addr_q + sub_q;
  wire [31:0] upper = place + line_words;
  wire reaches_upper = bank_wraps && next_bank != '0;
  assign bounds_error = read && (place >= OUT_WORDS || reaches_upper && upper >= OUT_WORDS);

  // The piece that was read
  logic piece_first_plane_q, piece_last_plane_q, first_plane_q;
  logic piece_fits_q;
  logic [31:0] piece_words_q;
  logic [POS_W-1:0] piece_pos_q;
  logic [PART_W-1:0] piece_part_q;
  logic [BANK_W-1:0] piece_bank_q;

  always_ff @(posedge clk) begin
    if (start) first_plane_q <= 1'b1;
    else if (moves && run_end) first_plane_q <= 1'b0;
    if (read) begin
      piece_first_plane_q <= first_plane_q;
      piece_last_plane_q  <= last_run;
      piece_last_q        <= beat_end;
      piece_fits_q        <= !bounds_error;
      piece_words_q       <= words;
      piece_pos_q         <= pos_q;
      piece_part_q        <= part_q;
      piece_bank_q        <= bank_q;
    end
  end

  // Its words in the places of the beat, and which lanes of the beat it writes
  wire [31:0] turn = 32'(piece_bank_q) << WORD_BITS;
  wire [WIDER_W-1:0] twice = WIDER_W'({out_read_data, out_read_data});
  wire [SPAN_W-1:0] turned = SPAN_W'(twice >> turn);
  wire [SPAN_W-1:0] placed = turned << (32'(piece_pos_q) << WORD_BITS);
  wire [DATA_W-1:0] codes = DATA_W'(placed >> (32'(piece_part_q) << $clog2(DATA_W)));
  wire [SPAN_LANES-1:0] span_lanes;
  wire [31:0] part_lane = 32'(piece_part_q) << $clog2(BEAT_LANES);
  wire [BEAT_LANES-1:0] lanes = BEAT_LANES'(span_lanes >> part_lane);
  wire [DATA_W-1:0] lane_bits;

  genvar b, w, f;
  generate
    for (b = 0; b < ROWS; b = b + 1) begin : g_bank
      assign out_read_addr[b*OUT_ADDR_W+:OUT_ADDR_W] =
          OUT_ADDR_W'(bank_q > BANK_W'(b) ? upper : place);
    end
    for (w = 0; w < BEAT_WORDS; w = w + 1) begin : g_word
      wire [31:0] from = w - 32'(piece_pos_q);
      for (f = 0; f < FEED; f = f + 1) begin : g_lane
        assign span_lanes[w*FEED+f] = piece_fits_q && from < piece_words_q &&
            (from_first_q[f] || !piece_first_plane_q) && (to_last_q[f] || !piece_last_plane_q);
      end
    end
    for (f = 0; f < BEAT_LANES; f = f + 1) begin : g_bits
      assign lane_bits[f*CODE_W+:CODE_W] = {CODE_W{lanes[f]}};
      assign beat_strobes[f*CODE_W/8+:CODE_W/8] = {CODE_W / 8{joined_lanes[f]}};
    end
  endgenerate

  // Together with the pieces before
  logic [DATA_W-1:0] codes_q;
  logic [BEAT_LANES-1:0] lanes_q;
  wire [BEAT_LANES-1:0] joined_lanes = lanes_q | lanes;

  assign beat = codes_q | codes & lane_bits;

  always_ff @(posedge clk) begin
    if (start || beat_taken) begin
      codes_q <= '0;
      lanes_q <= '0;
    end else if (piece_valid_q && !piece_last_q) begin
      codes_q <= beat;
      lanes_q <= joined_lanes;
    end
  end
endmodule

`default_nettype wire
