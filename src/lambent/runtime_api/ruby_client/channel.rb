# frozen_string_literal: true

# Frames (runtime_api/frames.py) over the blocking descriptor that the sandbox inherits.
#
# An answer is held back until the loop asks for the next event, and leaves in one write with the NEXT frame: an invocation costs one read
# and one write. When the node has gone, the process ends quietly, since nobody is left who could hear of it.

module LambentRuntime
  # One INVOKE frame. `token` is the lease epoch; every answer repeats it.
  Invoke = Struct.new(:token, :request_id, :deadline_ms, :arn, :trace, :tenant, :cognito, :client_context, :body)

  class Channel
    INVOKE = 0x01
    NEXT = 0x11
    RESPONSE = 0x12
    ERROR = 0x13
    INIT_ERROR = 0x14
    HEADER_SIZE = 9
    MAX_CAUSE = 1_048_576

    def initialize(descriptor)
      @reader = IO.for_fd(descriptor, 'rb')
      @writer = IO.for_fd(descriptor, 'wb', autoclose: false)
      @reader.close_on_exec = true
      @writer.sync = true
      @held = []
    end

    # Send the answer that is held back, ask for the next event and wait for it.
    def next_invoke
      held = @held
      @held = []
      send_parts(held << frame_head(NEXT, '', 0))
      kind, head_size, body_size = read_exactly(HEADER_SIZE).unpack('CNN')
      raise IOError, "unexpected frame #{kind} from the platform" unless kind == INVOKE

      fields = read_exactly(head_size).force_encoding(Encoding::UTF_8).split("\n", 8)
      Invoke.new(*fields, read_exactly(body_size).force_encoding(Encoding::UTF_8))
    end

    def respond(invoke, body, content_type)
      hold(RESPONSE, "#{invoke.token}\n#{invoke.request_id}\n#{line(content_type)}", body)
    end

    def fail(invoke, body, error_type, cause)
      cause = '' if cause.bytesize >= MAX_CAUSE
      hold(ERROR, "#{invoke.token}\n#{invoke.request_id}\n#{line(error_type)}\n#{cause}", body)
    end

    # Send what is held back without asking for more: the process is about to end.
    def flush
      held = @held
      @held = []
      send_parts(held) unless held.empty?
    end

    def init_error(body, error_type)
      hold(INIT_ERROR, line(error_type), body)
      flush
    end

    private

    def hold(kind, head, body)
      @held = [frame_head(kind, head, body.bytesize), body.b]
    end

    def frame_head(kind, head, body_size)
      [kind, head.bytesize, body_size].pack('CNN') << head.b
    end

    def send_parts(parts)
      @writer.write(*parts)
    rescue Errno::EPIPE, Errno::ECONNRESET
      exit!(0)
    end

    def read_exactly(size)
      return +'' if size.zero?

      data = begin
        @reader.read(size)
      rescue Errno::ECONNRESET
        nil
      end
      exit!(0) if data.nil? || data.bytesize < size
      data
    end

    def line(text)
      text.to_s.tr("\n", ' ')
    end
  end
end
