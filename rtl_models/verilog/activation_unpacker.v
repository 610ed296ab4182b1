`default_nettype none

// Cuts beats into words and writes them to the activation banks, a piece a cycle (rules M2, T7).
//
// Word (y, x) of plane cw has the pixel index q = load_bank for (0, 0), one more for every stride_x
// columns, `pitch` more for every row at which the vertical phase returns to 0, and goes to
//
//   bank q mod ROWS, address load_base + phase * phase_words + (q div ROWS) * in_words + cw
//   phase = ((y + phase_y) mod stride_y) * stride_x + x mod stride_x
//
// A piece is the next words of the beat that belong to the run, at most ROWS, of one image row; one
// word where stride_x > 1. Where words are longer than beats it is a part of a word. Latency 0: the
// piece at hand is written in this cycle. Addresses count in 32 bits, two's complement; one that is
// not in 0 .. ACT_WORDS - 1 is a `bounds_error` and not written. `start` samples the start_*, the
// cfg_* stay; the first beat comes 3 cycles after `start` at the earliest. No other reset.
//
//   beat_done    the piece is the beat's last one; `beat` changes after this cycle
//   start_byte   the first byte of the first run, modulo 2^32
module activation_unpacker #(
    parameter integer ROWS       = 4,
    parameter integer FEED       = 1,
    parameter integer CODE_W     = 8,
    parameter integer DATA_W     = 64,
    parameter integer ACT_WORDS  = 1024,
    // derived
    parameter integer ACT_ADDR_W = ACT_WORDS > 1 ? $clog2(ACT_WORDS) : 1,
    parameter integer WORD_W     = FEED * CODE_W
) (
    input wire clk,

    // configuration
    input wire [31:0] cfg_load_words,
    input wire [31:0] cfg_load_stride,
    input wire [31:0] cfg_load_row_words,
    input wire [31:0] cfg_load_rows,
    input wire [ 7:0] cfg_load_stride_x,
    input wire [ 7:0] cfg_load_stride_y,
    input wire [15:0] cfg_load_bank,
    input wire [31:0] cfg_load_phase_words,
    input wire [15:0] cfg_load_pitch_banks,
    input wire [15:0] cfg_load_phase_y,
    input wire [31:0] cfg_load_pitch_words,
    input wire [31:0] cfg_in_words,

    // beats
    input  wire              start,
    input  wire [      31:0] start_byte,
    input  wire [      31:0] start_base,
    input  wire              beat_valid,
    input  wire [DATA_W-1:0] beat,
    output wire              beat_done,

    // banks
    output wire [           ROWS-1:0] act_write,
    output wire [      ROWS*FEED-1:0] act_write_part,
    output wire [ROWS*ACT_ADDR_W-1:0] act_write_addr,
    output wire [    ROWS*WORD_W-1:0] act_write_data,

    output wire bounds_error
);
  localparam integer BEAT_WORDS = DATA_W > WORD_W ? DATA_W / WORD_W : 1;
  localparam integer PARTS = WORD_W > DATA_W ? WORD_W / DATA_W : 1;  // beats of a word
  localparam integer BANKS_W = ROWS * WORD_W;
  localparam integer SPAN_W = BEAT_WORDS * WORD_W;
  localparam integer WIDER_W = SPAN_W > BANKS_W ? SPAN_W : BANKS_W;
  localparam integer BYTE_BITS = $clog2(WORD_W / 8);  // address bits inside a word
  localparam integer WORD_BITS = $clog2(WORD_W);
  localparam integer POS_W = BEAT_WORDS > 1 ? $clog2(BEAT_WORDS) : 1;
  localparam integer PART_W = PARTS > 1 ? $clog2(PARTS) : 1;
  localparam integer BANK_W = $clog2(ROWS) + 1;  // holds ROWS

  // Banks are less than ROWS.
  wire unused_bank = &{cfg_load_bank[15:BANK_W], cfg_load_pitch_banks[15:BANK_W]};

  // A position in a beat, modulo its words
  function automatic [POS_W-1:0] in_beat(input [31:0] words);
    in_beat = POS_W'(words & (BEAT_WORDS - 1));
  endfunction

  // The piece: the words of the beat that follow pos_q
  logic [31:0] run_left_q, row_left_q;  // words from pos_q to the end
  logic [31:0] rows_left_q;             // of the plane, this one included
  logic [POS_W-1:0] pos_q, run_pos_q;   // word in the beat; of the run's first
  logic [PART_W-1:0] part_q;            // beat of the word
  wire [31:0] beat_left = BEAT_WORDS - 32'(pos_q);
  logic [31:0] words;
  wire strided = cfg_load_stride_x != 8'd1;

  always_comb begin
    words = strided ? 32'd1 : beat_left;
    if (words > ROWS) words = ROWS;
    if (words > run_left_q) words = run_left_q;
    if (words > row_left_q) words = row_left_q;
  end

  wire word_end = part_q == PART_W'(PARTS - 1);
  wire moves = beat_valid && word_end;
  wire run_end = words == run_left_q;
  wire row_end = words == row_left_q;
  wire plane_end = row_end && rows_left_q == 32'd1;
  wire [POS_W-1:0] next_run_pos = in_beat(32'(run_pos_q) + (cfg_load_stride >> BYTE_BITS));

  assign beat_done = words == beat_left || run_end || !word_end;

  always_ff @(posedge clk) begin
    if (start) begin
      run_left_q  <= cfg_load_words;
      row_left_q  <= cfg_load_row_words;
      rows_left_q <= cfg_load_rows;
      pos_q       <= in_beat(start_byte >> BYTE_BITS);
      run_pos_q   <= in_beat(start_byte >> BYTE_BITS);
    end else if (moves) begin
      run_left_q <= run_end ? cfg_load_words : run_left_q - words;
      row_left_q <= row_end ? cfg_load_row_words : row_left_q - words;
      if (row_end) rows_left_q <= plane_end ? cfg_load_rows : rows_left_q - 1'b1;
      pos_q <= run_end ? next_run_pos : in_beat(32'(pos_q) + words);
      if (run_end) run_pos_q <= next_run_pos;
    end
    if (start) part_q <= '0;
    else if (beat_valid) part_q <= word_end ? '0 : part_q + 1'b1;
  end

  // Addresses: of the word, and of x phase 0, of the row's first word, and of its y phase 0
  logic [31:0] word_q, line_q, row_q, row_line_q, plane_q;
  logic [BANK_W-1:0] bank_q, row_bank_q;
  logic [7:0] phase_x_q;
  logic [15:0] phase_y_q;
  logic [31:0] row_phase_words_q, first_phase_q;  // stable two cycles after start

  always_ff @(posedge clk) begin
    row_phase_words_q <= 32'(cfg_load_stride_x) * cfg_load_phase_words;
    first_phase_q     <= 32'(cfg_load_phase_y) * row_phase_words_q;
  end

  // In the row
  wire x_wraps = phase_x_q + 1'b1 == cfg_load_stride_x;
  wire [BANK_W-1:0] bank_sum = bank_q + (x_wraps ? BANK_W'(words) : '0);
  wire bank_wraps = bank_sum >= BANK_W'(ROWS);
  wire [31:0] next_line = line_q + (bank_wraps ? cfg_in_words : '0);

  // To the next row
  wire y_wraps = phase_y_q + 1'b1 == 16'(cfg_load_stride_y);
  wire [BANK_W-1:0] row_bank_sum = row_bank_q + BANK_W'(cfg_load_pitch_banks);
  wire row_bank_wraps = row_bank_sum >= BANK_W'(ROWS);
  wire [BANK_W-1:0] next_row_bank = row_bank_wraps ? row_bank_sum - BANK_W'(ROWS) : row_bank_sum;
  wire [31:0] next_row_line = row_line_q + cfg_load_pitch_words +
                              (row_bank_wraps ? cfg_in_words : '0);

  // The first row of a plane waits for first_phase_q
  logic begin_q, begin_q2;
  wire [31:0] plane = begin_q2 ? plane_q : plane_q + 1'b1;

  always_ff @(posedge clk) begin
    begin_q  <= start;
    begin_q2 <= begin_q;
    if (start) plane_q <= start_base;
    else if (moves && plane_end) plane_q <= plane;

    if (begin_q2 || moves && plane_end) begin
      row_line_q <= plane;
      row_q      <= plane + first_phase_q;
      line_q     <= plane + first_phase_q;
      word_q     <= plane + first_phase_q;
      row_bank_q <= BANK_W'(cfg_load_bank);
      bank_q     <= BANK_W'(cfg_load_bank);
      phase_x_q  <= '0;
      phase_y_q  <= cfg_load_phase_y;
    end else if (moves && row_end) begin
      phase_x_q <= '0;
      phase_y_q <= y_wraps ? '0 : phase_y_q + 1'b1;
      if (y_wraps) begin
        row_line_q <= next_row_line;
        row_bank_q <= next_row_bank;
      end
      row_q  <= y_wraps ? next_row_line : row_q + row_phase_words_q;
      line_q <= y_wraps ? next_row_line : row_q + row_phase_words_q;
      word_q <= y_wraps ? next_row_line : row_q + row_phase_words_q;
      bank_q <= y_wraps ? next_row_bank : row_bank_q;
    end else if (moves) begin
      phase_x_q <= x_wraps ? '0 : phase_x_q + 1'b1;
      line_q    <= next_line;
      word_q    <= x_wraps ? next_line : word_q + cfg_load_phase_words;
      bank_q    <= bank_wraps ? bank_sum - BANK_W'(ROWS) : bank_sum;
    end
  end

  // Banks from bank_q upwards take the words at word_q, those below it the words a line further on.
  wire [31:0] upper = word_q + cfg_in_words;
  wire word_fits = word_q < ACT_WORDS;
  wire upper_fits = upper < ACT_WORDS;
  wire [ROWS-1:0] in_piece;  // word j of the piece exists
  wire [ROWS-1:0] hit = ROWS'(({in_piece, in_piece} << bank_q) >> ROWS);
  wire [ROWS-1:0] unfit;
  wire [WIDER_W-1:0] span = WIDER_W'({PARTS{beat}});
  wire [BANKS_W-1:0] piece = BANKS_W'(span >> (32'(pos_q) << WORD_BITS));  // word j of the piece

  assign act_write_data = BANKS_W'(({piece, piece} << (32'(bank_q) << WORD_BITS)) >> BANKS_W);
  assign bounds_error = unfit != '0;

  genvar b, f;
  generate
    for (b = 0; b < ROWS; b = b + 1) begin : g_bank
      wire below = bank_q > BANK_W'(b);
      wire fits = below ? upper_fits : word_fits;
      assign in_piece[b] = words > b;
      assign unfit[b] = beat_valid && hit[b] && !fits;
      assign act_write[b] = beat_valid && hit[b] && fits;
      assign act_write_addr[b*ACT_ADDR_W+:ACT_ADDR_W] = ACT_ADDR_W'(below ? upper : word_q);
      for (f = 0; f < FEED; f = f + 1) begin : g_lane
        assign act_write_part[b*FEED+f] = part_q == PART_W'(f * PARTS / FEED);
      end
    end
  endgenerate
endmodule

`default_nettype wire
