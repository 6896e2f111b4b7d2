/** One call to a plugin that has come to an end. */
export interface PluginCall {
  /** `10-logger`. */
  plugin: string;
  /** As the protocol names the call. */
  operation: string;
  seconds: number;
  /** What it failed with; absent if it did not. */
  error?: unknown;
  /** How many other containers the plugin wants changed, and ended. */
  updates: number;
  evictions: number;
}

/** Is told what plugins are doing, for numbers about them. */
export interface NriObserver {
  called(call: PluginCall): void;
  /** So many take part now. */
  active(plugins: number): void;
}
