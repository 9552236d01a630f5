{{/*
One role's inference servers: a StatefulSet, so that each pod has a name that workers can call, its own cache of weights,
and its turn in an upgrade (a Deployment would start the new pod first, and wait for a GPU that the old one holds).
Call with (dict "root" $ "role" "teacher").
*/}}
{{- define "k2d.inference" -}}
{{- $part := index .root.Values .role }}
{{- $meta := dict "root" .root "part" .role "suffix" .role "values" $part }}
{{- $name := printf "%s-%s" (include "k2d.fullname" .root) .role }}
{{- $triton := eq $part.host "triton" }}
apiVersion: v1
kind: Service
metadata:
  {{- include "k2d.meta" (dict "root" .root "part" .role "suffix" (printf "%s-pods" .role)) | nindent 2 }}
    k2d/per-pod: "true"
spec:
  clusterIP: None   # a name for each pod; one that is not ready has none, and the others are asked
  ports:
    {{- include "k2d.inferencePorts" $triton | nindent 4 }}
  selector:
    {{- include "k2d.selector" $meta | nindent 4 }}
---
# one address for all other clients: OpenAI clients, people, Prometheus
apiVersion: v1
kind: Service
metadata:
  {{- include "k2d.meta" $meta | nindent 2 }}
spec:
  ports:
    {{- include "k2d.inferencePorts" $triton | nindent 4 }}
  selector:
    {{- include "k2d.selector" $meta | nindent 4 }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "k2d.meta" $meta | nindent 2 }}
spec:
  replicas: {{ $part.replicas }}
  serviceName: {{ $name }}-pods
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      {{- include "k2d.selector" $meta | nindent 6 }}
  template:
    metadata:
      {{- include "k2d.podMeta" $meta | nindent 6 }}
    spec:
      {{- include "k2d.podSpec" $meta | nindent 6 }}
      terminationGracePeriodSeconds: 90   # the batch in the engine ends; callers of what waits ask another server
      containers:
        - name: {{ .role }}
          {{- if $triton }}
          image: {{ include "k2d.image" (dict "root" .root "image" $part.tritonImage) }}
          args: [{{ .role }}]
          {{- else }}
          image: {{ include "k2d.image" (dict "root" .root "image" $part.image "suffix" (gt (int $part.gpus) 0 | ternary "-cuda" "")) }}
          command: [k2d, serve, {{ .role }}, --host, 0.0.0.0, --port, "8000"]
          {{- end }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          env:
            # as many threads as the CPU limit: without it the engine would take every core of the node
            - name: K2D_THREADS
              valueFrom: {resourceFieldRef: {containerName: {{ .role }}, resource: limits.cpu, divisor: "1"}}
            - name: HF_HOME
              value: /cache/huggingface
            {{- /* with a GPU asked for, no GPU is an error: on the CPU it would be far too slow */}}
            {{- $fixed := dict .role $part.model "host" "0.0.0.0" "cache" "/cache" "device" (gt (int $part.gpus) 0 | ternary "cuda" "cpu") }}
            {{- include "k2d.env" (merge (dict "fixed" $fixed) $meta) | nindent 12 }}
          ports:
            - {name: http, containerPort: 8000}
            {{- if $triton }}
            - {name: grpc, containerPort: 8001}
            - {name: metrics, containerPort: 8002}
            {{- end }}
          securityContext:
            {{- toYaml .root.Values.securityContext | nindent 12 }}
          resources:
            {{- include "k2d.resources" $meta | nindent 12 }}
          {{- $ready := $triton | ternary (printf "/v2/models/%s/ready" .role) "/readyz" }}
          {{- $alive := $triton | ternary "/v2/health/live" "/healthz" }}
          # until it has fetched and loaded the weights and transcribed the golden clips, only this probe counts
          startupProbe:
            httpGet: {path: {{ $ready }}, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: {{ max 1 (div (int $part.startSeconds) 10) }}
          readinessProbe:
            httpGet: {path: {{ $ready }}, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 3
          # two minutes without an answer: a busy server is not dead, and a restart loads the weights again
          livenessProbe:
            httpGet: {path: {{ $alive }}, port: http}
            periodSeconds: 15
            timeoutSeconds: 10
            failureThreshold: 8
          lifecycle:
            preStop:
              exec: {command: [sleep, "5"]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: cache, mountPath: /cache}
            {{- if $triton }}
            - {name: shm, mountPath: /dev/shm}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ $part.tmp }}}
        {{- if $triton }}
        - name: shm
          emptyDir: {medium: Memory, sizeLimit: {{ $part.shm }}}
        {{- end }}
        {{- if not $part.cache.enabled }}
        - name: cache
          emptyDir: {sizeLimit: {{ $part.cache.size }}}
        {{- end }}
  {{- if $part.cache.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: cache
      spec:
        accessModes:
          {{- toYaml $part.cache.accessModes | nindent 10 }}
        {{- with $part.cache.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $part.cache.size }}
  {{- end }}
{{- end }}

{{- define "k2d.inferencePorts" -}}
- {name: http, port: 8000, targetPort: http}
{{- if . }}
- {name: grpc, port: 8001, targetPort: grpc, appProtocol: kubernetes.io/h2c}
- {name: metrics, port: 8002, targetPort: metrics}
{{- end }}
{{- end }}
