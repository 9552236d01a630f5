{{/* What pods share: identity, security, where they run, their variables. */}}

{{/* Call with (dict "root" $ "part" "api" "values" .Values.api). */}}
{{- define "k2d.podMeta" -}}
{{- /* no chart version among a pod's labels: it would restart every server, and load every weight, for a new comment */}}
labels:
  {{- include "k2d.selector" . | nindent 2 }}
annotations:
  {{- /* a password or token changed here must reach running pods; settings are part of the pod and do so by themselves */}}
  checksum/secrets: {{ toJson (list .root.Values.auth .root.Values.redis.password) | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "k2d.podSpec" -}}
serviceAccountName: {{ include "k2d.serviceAccountName" .root }}
automountServiceAccountToken: false
# off: Kubernetes would set K2D_API_PORT and the like for every service here, and k2d refuses a K2D_ variable it does not know
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .values.tolerations .values.gpus }}
tolerations:
  {{- if .values.gpus }}
  - {key: {{ .values.gpuResource }}, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with .values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey .values "topologySpreadConstraints" }}
topologySpreadConstraints:
  {{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "k2d.selector" . | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Resources, with GPUs where asked. */}}
{{- define "k2d.resources" -}}
{{- $resources := deepCopy .values.resources }}
{{- if .values.gpus }}
{{- $gpu := dict .values.gpuResource .values.gpus }}
{{- $_ := set $resources "limits" (merge $gpu (default dict $resources.limits)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* K2D_ variables of a dict of settings; lists and booleans as k2d reads them. */}}
{{- define "k2d.settings" -}}
{{- range $name, $value := . }}
- name: K2D_{{ $name | upper }}
  value: {{ kindIs "slice" $value | ternary (join "," $value) $value | toString | quote }}
{{- end }}
{{- end }}

{{/* The variables of all k2d containers: a part's own settings win over those of all parts. */}}
{{- define "k2d.env" -}}
- name: HOME
  value: /tmp
- name: TMPDIR
  value: /tmp
{{- $own := dict "log_json" true }}
{{- include "k2d.settings" (mergeOverwrite $own .root.Values.settings .values.settings (default dict .fixed)) }}
{{- with include "k2d.tokenSecret" .root }}
- name: K2D_API_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ include "k2d.tokenKey" $.root }}}}
{{- end }}
{{- with .values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Redis and the lake: for the API and workers. */}}
{{- define "k2d.stateEnv" -}}
{{- if .root.Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "k2d.redisSecret" .root }}, key: {{ include "k2d.redisKey" .root }}}}
- name: K2D_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "k2d.fullname" .root }}-redis:6379/0
{{- else }}
- name: K2D_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .root.Values.redis.externalSecret.name }}, key: {{ .root.Values.redis.externalSecret.key }}}}
{{- end }}
{{- include "k2d.storeEnv" . }}
{{- end }}

{{/* The object store's client. */}}
{{- define "k2d.storeEnv" -}}
{{- range $name, $value := .root.Values.store.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "k2d.stateEnvFrom" -}}
{{- if and .Values.store.url .Values.store.existingSecret }}
envFrom:
  - secretRef: {name: {{ .Values.store.existingSecret }}}
{{- end }}
{{- end }}

{{- define "k2d.store" -}}
{{- default "/data" .Values.store.url }}
{{- end }}
